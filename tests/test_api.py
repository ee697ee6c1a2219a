"""The public API can be used without a private import."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

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


TAKES_ONE = {
    "to_xarray": ps.to_xarray,
    "to_pynapple": ps.to_pynapple,
    "save_recording": lambda given: ps.save_recording(given, "unused"),
    "convolve_events": lambda given: ps.convolve_events(given, 0.3),
    "trials": lambda given: ps.trials(given, "direction"),
    "write_nwb": lambda given: ps.write_nwb(given, "unused.nwb"),
    "write_predictable": lambda given: ps.write_predictable(given, "unused.npy", pd.DataFrame()),
}
TAKES_SEVERAL = {
    "divide": lambda given: ps.divide(given, "direction"),
    "evaluate": lambda given: ps.evaluate(None, given),
    "run": lambda given: ps.run(given, "unused", ps.RunConfig()),
    "partition_by_predictability": ps.partition_by_predictability,
    "describe_neurons": lambda given: ps.describe_neurons(given, None),
    "pretrain": ps.pretrain,
    "finetune": lambda given: ps.finetune(given, "direction"),
}


@pytest.mark.parametrize("verb", [*TAKES_ONE, *TAKES_SEVERAL])
def test_what_is_given_in_place_of_recordings_is_named(verb, tiny_recording):
    others = [("day.nwb", "text 'day.nwb'"), (Path("a"), "'a'"), (None, "got None")]
    if verb in TAKES_ONE:
        others += [([tiny_recording], "a list of 1 Recording")]
    else:
        others += [([Path("a")], "Path|'a'")]
    for given, said in others:
        with pytest.raises(TypeError, match=rf"Needed is a .*({said})"):
            (TAKES_ONE | TAKES_SEVERAL)[verb](given)


@pytest.mark.parametrize("given", [None, 5, [None]])
def test_what_is_given_in_place_of_paths_is_named(given):
    with pytest.raises(TypeError, match=r"Needed is a str or Path, got .* Give paths of files"):
        ps.load_recordings(given)


def test_one_recording_is_as_good_as_a_list_of_one(tiny_recording):
    divided = ps.divide(tiny_recording, "direction", ps.SplitConfig(held_out_blocks=1, guard=0.5))
    assert [d.recording for d in divided] == [tiny_recording]
