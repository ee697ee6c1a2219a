"""Diets take the units they say, as many as they say, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.comparison.diets import DIETS, choose_units
from poyo_ssl.predictability.partition import Partition
from poyo_ssl.predictability.thresholds import PredictabilityConfig, Thresholds
from poyo_ssl.recordings.recording import Recording, RecordingError

# recording -> Cre line, units, of which predictable; then two that are excluded
CONTENTS = {
    "sst": ("Sst-IRES-Cre", 10, 8),
    "cux": ("Cux2-CreERT2", 20, 2),
    "tlx": ("Tlx3-Cre_PL56", 6, 0),
}


def recordings_of(*names: str) -> list[Recording]:
    return [
        Recording(
            recording_id=name,
            df_over_f=np.zeros((2, CONTENTS[name][1] + 2), dtype=np.float32),
            timestamps=np.arange(2.0),
            units=pd.DataFrame({"unit_id": unit_ids(name, CONTENTS[name][1] + 2)}),
        )
        for name in names
    ]


def unit_ids(name: str, number: int) -> list[str]:
    return [f"{name}-{i}" for i in range(number)]


def partition_of(contents=CONTENTS) -> Partition:
    rows = [
        {
            "recording_id": name,
            "unit_id": unit_id,
            "cre_line": line,
            "is_predictable": i < num_predictable,
            "excluded": "constant" if i >= num_units else "",
        }
        for name, (line, num_units, num_predictable) in contents.items()
        for i, unit_id in enumerate(unit_ids(name, num_units + 2))
    ]
    thresholds = Thresholds(
        skewness_max=3.51, kurtosis_max=22.62, source="published", line_means=pd.DataFrame()
    )
    return Partition(units=pd.DataFrame(rows), thresholds=thresholds, config=PredictabilityConfig())


PARTITION = partition_of()
EVERYWHERE = recordings_of("sst", "cux", "tlx")
PREDICTABLE = {unit for name in ("sst", "cux") for unit in unit_ids(name, CONTENTS[name][2])}


def take(diet: str, recordings=EVERYWHERE, seed: int = 0, **options) -> set[str]:
    chosen = choose_units(diet, PARTITION, recordings, seed=seed, **options)
    return {unit for ids in chosen.values() for unit in ids}


def counts(diet: str, seed: int = 0) -> dict[str, int]:
    chosen = choose_units(diet, PARTITION, EVERYWHERE, seed=seed)
    return {name: len(ids) for name, ids in chosen.items()}


@pytest.mark.parametrize("diet", DIETS)
def test_no_diet_takes_excluded_units_or_a_unit_twice(diet):
    chosen = choose_units(diet, PARTITION, EVERYWHERE, seed=1)
    for name, ids in chosen.items():
        assert len(set(ids)) == len(ids)
        included = unit_ids(name, CONTENTS[name][1])
        assert set(ids) <= set(included)
        assert ids == [unit for unit in included if unit in ids]  # in column order


def test_predictable_and_unpredictable_units_share_none_and_make_up_all():
    assert take("predictable") == PREDICTABLE
    assert not take("predictable") & take("unpredictable")
    assert take("predictable") | take("unpredictable") == take("all")
    assert len(take("all")) == 36


def test_a_random_diet_has_the_size_of_the_predictable_one_in_every_recording():
    assert counts("random") == counts("predictable") == {"sst": 8, "cux": 2}


def test_a_random_diet_across_recordings_has_that_size_in_all():
    drawn = [counts("random across", seed) for seed in range(20)]
    assert {sum(number.values()) for number in drawn} == {len(PREDICTABLE)}
    assert any("tlx" in number for number in drawn)
    # units of every recording are as likely: 20 of 36 are in the largest
    share = np.mean([number.get("cux", 0) for number in drawn]) / len(PREDICTABLE)
    assert share == pytest.approx(20 / 36, abs=0.1)


def test_a_mixed_diet_is_half_and_half_and_as_large_as_the_predictable_one():
    mixed = take("mixed")
    assert len(mixed) == len(PREDICTABLE)
    assert len(mixed & PREDICTABLE) == len(PREDICTABLE) // 2


@pytest.mark.parametrize("diet", ["random", "random across", "mixed"])
def test_drawn_diets_depend_on_the_seed_alone(diet):
    assert take(diet, seed=3) == take(diet, seed=3)
    assert take(diet, seed=3) != take(diet, seed=4)


def test_an_inhibitory_diet_takes_interneuron_lines_predictable_or_not():
    assert take("inhibitory") == set(unit_ids("sst", 10))


def test_lines_are_known_by_their_full_name_and_by_their_gene():
    for line in ("Cux2", "Cux2-CreERT2"):
        assert take("all", lines=(line,)) == set(unit_ids("cux", 20))
    assert take("predictable", lines=("Cux2", "Tlx3")) == set(unit_ids("cux", 2))


def test_a_diet_takes_only_from_the_recordings_given():
    assert take("all", recordings_of("tlx")) == set(unit_ids("tlx", 6))


@pytest.mark.parametrize(
    ("diet", "options"),
    [("predictable", {}), ("random", {}), ("inhibitory", {}), ("all", {"lines": ("Sst",)})],
)
def test_an_empty_diet_is_refused_and_says_what_there_is(diet, options):
    with pytest.raises(RecordingError, match=r"takes no unit of 1 recordings.*0 of 6.*Tlx3"):
        take(diet, recordings_of("tlx"), **options)


def test_a_mixed_diet_without_unpredictable_units_enough_is_refused():
    partition = partition_of({"sst": ("Sst", 10, 9)})
    with pytest.raises(RecordingError, match=r"needs 5 unpredictable units.*found 1"):
        choose_units("mixed", partition, recordings_of("sst"), seed=0)


def test_an_unknown_diet_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"Unknown diet 'keto'. Choose from: predictable"):
        take("keto")
