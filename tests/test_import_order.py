"""Nothing imports what stands after it in the order that CONTRIBUTING.md states."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "poyo_ssl"


def stated_order() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = text.split("## What may import what")[1].split("\n## ")[0].split("\n- ")[1:]
    return re.findall(r"`(\w+)`", " ".join(lines))


def parts_imported(code: ast.AST) -> Iterator[tuple[str, int]]:
    """What a file imports of the package, and where, save for types alone."""
    for node in ast.iter_child_nodes(code):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports inside the package are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, part = name.partition(".")
            if package == PACKAGE.name and part:
                yield part.split(".")[0], node.lineno
        yield from parts_imported(node)


def imports_against(order: list[str], package: Path) -> list[str]:
    place = {part: index for index, part in enumerate(order)}
    return [
        f"{path.relative_to(package)}:{line} imports {part}"
        for path in sorted(package.rglob("*.py"))
        if (own := path.relative_to(package).parts[0].removesuffix(".py")) in place
        for part, line in parts_imported(ast.parse(path.read_text(encoding="utf-8")))
        if place.get(part, len(order)) > place[own]
    ]


def test_every_part_has_one_place():
    parts = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    parts |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(stated_order()) == sorted(parts)


def test_nothing_imports_what_stands_after_it():
    assert imports_against(stated_order(), PACKAGE) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "import poyo_ssl.later",
        "from poyo_ssl import later",
        "from poyo_ssl.later.inner import x",
        "def late():\n    from poyo_ssl.later import x",
        "if x:\n    import poyo_ssl.nowhere",
    ],
)
def test_an_import_against_the_order_is_found_wherever_it_stands(tmp_path, wrong):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "inner.py").write_text(wrong)
    (tmp_path / "later.py").write_text(
        "import numpy, poyo_ssl, poyo_ssl.first\nfrom poyo_ssl.first import x\n"
        "if TYPE_CHECKING:\n    import poyo_ssl.nowhere\n"
    )
    [found] = imports_against(["first", "later"], tmp_path)
    assert "inner.py" in found
