"""The public API can be used without a private import."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator

import poyo_ssl as ps

VERBS = [name for name in ps.__all__ if inspect.isfunction(getattr(ps, name))]


def types_in(hint: object) -> Iterator[type]:
    """Every class of this package that a type hint names."""
    if inspect.isclass(hint) and hint.__module__.startswith("poyo_ssl"):
        yield hint
    for part in typing.get_args(hint):
        yield from types_in(part)


def test_every_type_in_a_public_signature_is_public():
    public = {getattr(ps, name) for name in ps.__all__}
    private = {
        f"{verb}: {found.__name__}"
        for verb in VERBS
        for hint in typing.get_type_hints(getattr(ps, verb)).values()
        for found in types_in(hint)
        if found not in public
    }
    assert not private


def test_the_verbs_of_the_six_lines_need_no_config():
    for verb, needed in {
        "load_recordings": 1, "divide": 2, "partition_by_predictability": 1, "pretrain": 1,
        "finetune": 2, "evaluate": 2,
    }.items():  # fmt: skip
        parameters = inspect.signature(getattr(ps, verb)).parameters.values()
        assert sum(p.default is p.empty for p in parameters) == needed, verb
