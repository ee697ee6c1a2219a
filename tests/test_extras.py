"""The core works without any extra, and says of what it lacks how to install it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

from packaging.requirements import Requirement

from poyo_ssl.comparison.run_directory import DISTRIBUTIONS
from poyo_ssl.extras import EXTRAS
from shared_data import ROOT

BARE = """
import json, sys

MISSING = {"hdmf", "huggingface_hub", "imageio_ffmpeg", "isx", "pynapple", "pynwb",
           "pytorch_optimizer", "ray", "remfile", "roiextractors", "tensorboard", "torch_brain",
           "wandb", "xarray", "zarr"}

class Bare:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in MISSING:
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Bare, sys.meta_path)

from poyo_ssl import PoyoClassifier, adapt, load_recordings, run
assert "plotly" not in sys.modules, "only reports need it"

from pathlib import Path
import numpy as np
import poyo_ssl as ps
from poyo_ssl import *
from poyo_ssl.cli import COMMANDS, build_parser
from poyo_ssl.parallel import map_in_parallel
from poyo_ssl.recordings.dandi.remote import open_remote
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.formats.roiextractors_formats import _explained
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.report.movie_file import WRITERS
from poyo_ssl.training.loggers import LOGGERS
from poyo_ssl.training.window_module import _make_optimizer

for name in COMMANDS:
    build_parser([name])
folder = Path(sys.argv[1])
recording = recording_from_arrays(
    np.zeros((50, 3), dtype=np.float32), recording_id="bare", sampling_rate=10.0
)
assert ps.load_recordings([save_recording(recording, folder)])[0].num_units == 3

def explain(path):
    with _explained(path):
        pass

lamb = ps.TrainingConfig(optimizer="lamb")
asked = {
    "formats": lambda: explain(folder),
    "hub": lambda: ps.Encoder.from_pretrained("some/one"),
    "lamb": lambda: _make_optimizer([], lamb),
    "movie": lambda: WRITERS[".mp4"](folder / "a.mp4", [], 10.0),
    "nwb": lambda: ps.write_nwb(recording, folder / "a.nwb"),
    "pynapple": lambda: ps.to_pynapple(recording),
    "ray": lambda: map_in_parallel(len, ["a", "b"], workers=2),
    "remote": lambda: open_remote("http://localhost/a.nwb"),
    "tensorboard": lambda: LOGGERS["tensorboard"](folder, 1),
    "wandb": lambda: LOGGERS["wandb"](folder, 1),
    "xarray": lambda: ps.to_xarray(recording),
}
said = {}
for extra, ask in asked.items():
    try:
        ask()
    except (ImportError, ValueError) as error:
        said[extra] = str(error)
print(json.dumps(said))
"""


def test_everything_is_imported_without_extras_and_what_is_missing_is_said(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", BARE, tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said.keys() == EXTRAS.keys()
    for extra, message in said.items():
        command = re.escape(f'Run: pip install "poyo-ssl[{extra}]".')
        assert re.search(rf"needs \w+ \(.*\)\. {command}", message), message


def test_every_extra_is_in_all_and_tests_have_all_but_what_is_large():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    [needed] = map(Requirement, extras["all"])
    assert needed.extras == set(EXTRAS) <= set(extras)
    assert Requirement(extras["test"][0]).extras == set(EXTRAS) - {"wandb"}
    core = {Requirement(text).name for text in project["dependencies"]}
    optional = {Requirement(text).name for extra in EXTRAS for text in extras[extra]}
    assert core.isdisjoint(optional | {"torch-brain"})
    assert set(DISTRIBUTIONS) <= core | {"poyo-ssl"}  # whose versions every run writes down
