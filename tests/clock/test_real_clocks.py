"""No clock of a real recording is doubted; a wrong one is."""

import pytest

from poyo_ssl.clock.check import check_clock
from poyo_ssl.recordings.loading import load_recording
from shared_data import DATA, needs_shared_data

pytestmark = needs_shared_data


def check(file, shift=0.0):
    recording = load_recording(DATA / file)
    (name, table), *_ = recording.stimuli.items()
    recording.stimuli[name] = table.assign(start=table["start"] + shift, end=table["end"] + shift)
    return check_clock(recording)[0]


@pytest.mark.parametrize(
    ("file", "num_responding"),
    [
        ("sub-527550471_ses-527745328-StimA_ophys.nwb", 200),
        ("sub-527550471_ses-527676626-StimB_ophys.nwb", 150),
        ("park_gratings/mrcuts28.npz", 40),
        ("swdb_movie/swdb2016.npz", 150),
        ("yu_sequences/rdk_10.npz", 1),
    ],
)
def test_units_respond_to_what_is_listed_and_no_clock_is_doubted(file, num_responding):
    found = check(file)
    assert found.num_responding >= num_responding
    assert found.warning == ""


@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_a_shift_of_real_gratings_is_found(shift):
    found = check("sub-527550471_ses-527745328-StimA_ophys.nwb", shift)
    assert found.best_lag == pytest.approx(0.35 - shift, abs=0.2)
    assert "Its clock seems to be off" in found.warning
