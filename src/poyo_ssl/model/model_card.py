"""The page that goes with shared weights: what they are, where they come from, how to use them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from poyo_ssl.model.provenance import Provenance

_NAMED = 10  # recordings or animals that a card names; of more it gives the number
_HEADER = """---
library_name: poyo-ssl
tags:
- poyo-ssl
- neuroscience
- calcium-imaging
- neural-decoding
---
"""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model card in Markdown, as the Hugging Face Hub shows it."""

    title: str
    usage: str
    """Lines of Python."""
    facts: Mapping[str, str]
    """What there is to know beside the provenance."""
    provenance: Provenance | None
    """What the weights were learned from; None where it was not kept."""
    config: Mapping[str, Any]
    """JSON-ready; the card shows how many values a long list has."""
    scores: Mapping[str, float]
    """Metric to value; may be empty."""

    def __str__(self) -> str:
        """The whole page."""
        parts = [f"# {self.title}", *self._notes(), self._table(), self._scores()]
        parts += ["## Use", f"```python\n{self.usage}\n```"]
        parts += ["## Config", f"```json\n{json.dumps(_shorten(self.config), indent=1)}\n```"]
        return _HEADER + "\n" + "\n\n".join(part for part in parts if part) + "\n"

    def _notes(self) -> list[str]:
        if self.provenance is None:
            return ["> It is not known which recordings these weights were learned from."]
        if self.provenance.is_simulated:
            return [
                "> **Simulated data.** These weights were learned from invented recordings; they "
                "show that the method works, and say nothing about brains."
            ]
        return []

    def _table(self) -> str:
        learned = {} if self.provenance is None else _facts_of(self.provenance)
        facts = {**self.facts, **learned, "Written by": f"poyo-ssl {version('poyo-ssl')}"}
        rows = [f"| {_cell(name)} | {_cell(fact)} |" for name, fact in facts.items()]
        return "\n".join(["| | |", "|---|---|", *rows])

    def _scores(self) -> str:
        if not self.scores:
            return ""
        rows = [f"| {_cell(name)} | {value:.3f} |" for name, value in self.scores.items()]
        return "\n".join(["## Scores", "", "| Metric | Value |", "|---|---|", *rows])


def _facts_of(provenance: Provenance) -> dict[str, str]:
    facts = {"Recordings": list_names(provenance.recordings)}
    facts["Animals"] = list_names(provenance.animals) if provenance.animals else "not named"
    if provenance.step is not None:
        facts["Training"] = f"step {provenance.step}, {provenance.seconds or 0:.0f} s"
    return facts


def list_names(names: Iterable[object]) -> str:
    """How many there are, and the first of them."""
    texts = [str(name) for name in names]
    more = ", ..." if len(texts) > _NAMED else ""
    return f"{len(texts)}: {', '.join(texts[:_NAMED])}{more}" if texts else "none"


def _shorten(value: Any) -> Any:
    if isinstance(value, list | tuple):
        is_long = len(value) > _NAMED
        return f"{len(value)} values" if is_long else [_shorten(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _shorten(item) for name, item in value.items()}
    return value


def _cell(text: str) -> str:
    """Text for a table of Markdown: one line, and no bar or tag of its own."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
