"""Pages of docs/results: each has a question, numbers from benchmarks/results, and its limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared_data import ROOT

PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_a_study_asks_shows_and_says_what_it_does_not_show(page: Path):
    text = page.read_text()
    assert re.match(r"# .+\?\n", text)
    assert "\n## What it does not show\n" in text
    assert "\n| " in text or "```{include} ../../benchmarks/results/" in text
    needed = re.findall(r"!\[[^\]]+\]\(([^)]+)\)|```{include} (\S+)", text)
    for name in map("".join, needed):
        assert (page.parent / name).is_file(), name
    assert f"results/{page.stem}\n" in (ROOT / "docs" / "results.md").read_text()
