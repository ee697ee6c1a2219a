"""Damage of any kind to what is read ends in a recording or in an error that says what is wrong.

``benchmarks/fuzz.py`` does the same for an hour. What it found is kept in ``FOUND``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import TARGETS, Edit, damage, make_all, outcome_of

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="damaged files are read in forked processes, as POSIX has them"
)
FOUND: list[tuple[str, list[Edit]]] = [
    # numpy's header of pictures, which tokenize does not end
    ("stored", [Edit(192262, 958215, 310301, 501551), Edit(602313, 183418, 149948, 497913)]),
    # columns of a manifest that pandas does not cast
    ("manifest", [Edit(485352, 642235, 300698, 481966), Edit(240282, 528778, 729077, 823576)]),
    # a zip directory that lies before the beginning of the file: the user is not to blame
    ("checkpoint", [Edit(217085, 975452, 639746, 971249)]),
    # a group of options that holds none, a config that is no UTF-8, an option without a value
    ("config", [Edit(921376, 553527, 20983, 894760)]),
    ("config", [Edit(267591, 255497, 695778, 865391), Edit(1032844, 454361, 805311, 886525)]),
    ("config", [Edit(339283, 574335, 425380, 315917)]),
    # an answer that is none of the classes
    ("merged run", [Edit(126949, 13345, 781978, 363478)]),
    # where a decoder came from, as a list
    (
        "evaluated run",
        [Edit(435507, 940168, 980011, 271315), Edit(94752, 745609, 411265, 1017444)],
    ),
    # a film whose pictures do not decompress
    (
        "reported films",
        [
            Edit(243347, 258833, 561391, 781738),
            Edit(871862, 169512, 1035512, 67524),
            Edit(739977, 347577, 875273, 787383),
        ],
    ),
]
"""Target and the damage that ended otherwise once."""
numbers = st.integers(0, 2**20)
edits = st.lists(st.builds(Edit, numbers, numbers, numbers, numbers), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    return make_all(TARGETS, lambda: tmp_path_factory.mktemp("whole"))


def outcome_of_damage(name: str, whole: Path, edits: list[Edit], folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    damage(folder, edits, TARGETS[name].suffixes)
    return outcome_of(TARGETS[name], folder)


@pytest.mark.parametrize("name", TARGETS)
def test_whole_files_are_read(whole, tmp_path, name):
    assert outcome_of_damage(name, whole[name], [], tmp_path / "whole") == "read"


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=8, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(edits=edits)
def test_damaged_files_are_read_or_refused(whole, tmp_path, name, edits):
    found = outcome_of_damage(name, whole[name], edits, tmp_path / "damaged")
    assert found in ("read", "refused")


@pytest.mark.parametrize(("name", "edits"), FOUND)
def test_damage_that_was_found_is_read_or_refused(whole, tmp_path, name, edits):
    found = outcome_of_damage(name, whole[name], edits, tmp_path / "damaged")
    assert found in ("read", "refused")
