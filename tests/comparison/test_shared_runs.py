"""Runs that several processes share: no fit is done twice or lost; one process does the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
import ray
import yaml
from joblib import Parallel, delayed
from ray.cluster_utils import Cluster

from poyo_ssl import ray_tasks
from poyo_ssl.cli import main
from poyo_ssl.comparison import run as run_module
from poyo_ssl.comparison import shared_work
from poyo_ssl.comparison.merge import merge
from poyo_ssl.comparison.run import prepare_run, run, run_part
from poyo_ssl.comparison.run_plan import PLAN, RunPlan
from poyo_ssl.comparison.shared_work import CLAIM, Claim, Part, Piece, Workers
from poyo_ssl.comparison.slurm import write_slurm_scripts
from poyo_ssl.output_directory import OutputError
from poyo_ssl.ray_tasks import on_ray
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.storage import save_recording
from tiny_runs import tiny_observatory, tiny_run_config

pytestmark = pytest.mark.usefixtures("units_undescribed")
CONFIG = tiny_run_config(arms=("scratch", "pretrained"), num_seeds=2)
TABLES = ("predictions.csv", "curves.csv")
DO_FITS = ("pretrain_encoder", "fit_and_score")
"""What in ``comparison.run`` does a piece of work."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Recordings and a config as files."""
    place = tmp_path_factory.mktemp("place of runs")
    for recording in tiny_observatory():
        save_recording(recording, place / f"{recording.recording_id}.h5")
    (place / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(CONFIG)))))
    return place


@pytest.fixture(scope="module")
def recordings(place):
    return load_recordings(sorted(place.glob("*.h5")))


@pytest.fixture(scope="module")
def alone(recordings, tmp_path_factory) -> Path:
    """A run of one process."""
    directory = tmp_path_factory.mktemp("alone")
    run(recordings, directory, CONFIG)
    return directory


def require_same(directory: Path, alone: Path) -> None:
    """Whether a run has the scores, answers and weights of the one of one process, to the bit."""
    for name in TABLES:
        assert (directory / name).read_bytes() == (alone / name).read_bytes(), name
    for name in ("scores.csv", "summary.csv"):
        tables = [pd.read_csv(path / name) for path in (directory, alone)]
        values = [table.loc[:, ~table.columns.str.contains("seconds")] for table in tables]
        pd.testing.assert_frame_equal(*values, check_exact=True)
    weights = [
        {path.relative_to(d): path.read_bytes() for path in d.rglob("weights.safetensors")}
        for d in (directory, alone)
    ]
    assert weights[0] == weights[1]
    assert (directory / "report.html").is_file()
    assert not [*directory.rglob(CLAIM)]


def log_pieces(patch: pytest.MonkeyPatch, log: Path) -> None:
    """Has every pretraining and fit of this process write a line."""

    def logged(function):
        def do(experiment, *piece):
            with log.open("a") as lines:
                lines.write(f"{os.getpid()} {piece}\n")
            return function(experiment, *piece)

        return do

    for name in DO_FITS:
        patch.setattr(run_module, name, logged(getattr(run_module, name)))


def be_a_part(recordings, directory: Path, log: Path, number: int) -> None:
    log.with_name(f"{number} is here").touch()
    while len([*log.parent.glob("* is here")]) < 2:
        time.sleep(0.01)
    with pytest.MonkeyPatch.context() as patch:
        log_pieces(patch, log)
        run_part(recordings, directory, CONFIG, Part(1, 1))


def test_two_processes_that_want_the_same_fits_do_each_once(recordings, alone, tmp_path):
    directory, log = tmp_path / "run", tmp_path / "log"
    Parallel(n_jobs=2)(delayed(be_a_part)(recordings, directory, log, k) for k in range(2))
    pieces = Counter(line.partition(" ")[2] for line in log.read_text().splitlines())
    assert set(pieces.values()) == {1}
    with pytest.MonkeyPatch.context() as patch:
        log_pieces(patch, log)
        run(recordings, directory, CONFIG)
    plan = RunPlan.load(directory)
    done = log.read_text().splitlines()
    assert len(done) == len(pieces) == len(plan.fits) + len(plan.pretrainings)
    require_same(directory, alone)


# claims --------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from poyo_ssl.comparison.shared_work import Claim
with Claim(Path(sys.argv[1])).taken() as is_ours:
    print(is_ours, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the claim of ``tmp_path / 'fit'``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "fit")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def piece(tmp_path) -> Piece:
    """Work that makes a file."""
    directory = tmp_path / "fit"
    return Piece(directory=directory, results=("made",), make=(directory / "made").touch)


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(shared_work, "_GLANCE", 0.01)
    (tmp_path / "marker").touch()
    return tmp_path / "marker"


def test_a_piece_is_left_to_who_does_it_and_taken_over_when_that_is_killed(holder, piece, marker):
    workers = Workers(marker=marker, jobs=1, is_patient=False)
    workers.do({"work": [piece]})
    piece()
    assert not piece.is_done()
    holder.kill()
    holder.wait()
    workers.do({"work": [piece]})
    assert piece.is_done()
    assert [path.name for path in piece.directory.iterdir()] == ["made"]


def test_a_claim_of_a_machine_that_is_gone_ends_when_it_is_not_renewed(piece, marker, monkeypatch):
    monkeypatch.setattr(shared_work, "_LEASE", 0.2)
    with Claim(piece.directory).taken():
        left = (piece.directory / CLAIM).read_text()
    lines = [
        "host=a.machine.that.is.gone" if line.startswith("host=") else line
        for line in left.splitlines()
    ]
    (piece.directory / CLAIM).write_text("\n".join(lines) + "\n")
    Workers(marker=marker, jobs=1, is_patient=False).do({"work": [piece]})
    assert not piece.is_done()
    Workers(marker=marker, jobs=1).do({"work": [piece]})
    assert piece.is_done()


def test_what_others_need_is_waited_for(holder, piece, marker, tmp_path):
    needing = Piece(
        directory=tmp_path / "other",
        results=("made",),
        make=(tmp_path / "other" / "made").touch,
        needed=(piece.directory / "made",),
    )
    looks = []

    def look() -> bool:
        looks.append(1)
        if len(looks) == 3:  # the holder has come to its end meanwhile
            (piece.directory / "made").touch()
        return Piece.is_ready(needing)

    object.__setattr__(needing, "is_ready", look)
    Workers(marker=marker, jobs=1, is_patient=False).do({"a": [piece], "b": [needing]})
    assert needing.is_done()


def test_a_part_begins_with_its_share_and_goes_on_with_the_others():
    assert Part.from_text("2/3").order("abcdefg") == ["b", "e", "c", "f", "a", "d", "g"]


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3"])
def test_impossible_parts_are_refused(text):
    with pytest.raises(ValueError, match="part must be NUMBER/COUNT"):
        Part.from_text(text)


# Ray -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Iterator[str]:
    """Address of a Ray cluster of two machines, of one core each."""
    options = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    cluster.add_node(**options)
    yield cluster.address
    cluster.shutdown()


def test_machines_of_a_ray_cluster_do_what_one_process_does_and_one_may_die(
    recordings, alone, nodes, tmp_path, monkeypatch
):
    log = tmp_path / "log"
    log_pieces(monkeypatch, log)
    fit = run_module.fit_and_score

    def die_once(experiment, planned):
        place = ray.get_runtime_context().get_node_id()
        (log.parent / f"{place} is here").touch()
        while len([*log.parent.glob("* is here")]) < 2:
            time.sleep(0.01)
        if planned.arm == "pretrained" and not (log.parent / "died").exists():
            (log.parent / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        fit(experiment, planned)

    monkeypatch.setattr(run_module, "fit_and_score", die_once)
    monkeypatch.chdir(tmp_path)  # machines of a cluster work elsewhere
    run(recordings, Path("run"), replace(CONFIG, jobs=0), address=nodes)
    pieces = Counter(line.partition(" ")[2] for line in log.read_text().splitlines())
    assert set(pieces.values()) == {1}
    plan = RunPlan.load(tmp_path / "run")
    assert len(pieces) == len(plan.fits) + len(plan.pretrainings)
    assert (tmp_path / "died").exists()
    require_same(tmp_path / "run", alone)


def test_what_goes_wrong_on_a_machine_of_a_cluster_is_said_here(nodes, tmp_path, monkeypatch):
    def refuse() -> None:
        raise RecordingError("Recording 3 is broken.")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ray_tasks, "_MOST_DEATHS", 0)
    with on_ray(nodes, Path(__file__)) as call:
        with pytest.raises(RecordingError, match="Recording 3 is broken"):
            [*call([refuse], 0)]
        with pytest.raises(ChildProcessError, match=r"died 1 times.* same command to resume"):
            [*call([die], 1)]
        with (
            pytest.raises(OutputError, match=r"does not see .* storage that all machines see"),
            on_ray(nodes, tmp_path) as elsewhere,  # a folder is no file
        ):
            [*elsewhere([refuse], 0)]


# SLURM ---------------------------------------------------------------------------------------

SBATCH = """#!/bin/bash
# Runs a job at once, task after task; its number is that of the job.
echo "$@" >> "$LOG"
number=$(wc -l < "$LOG")
script=${@: -1}
tasks=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for task in $(seq "${tasks:-1}"); do
    SLURM_JOB_ID=$number SLURM_CPUS_PER_TASK=1 SLURM_ARRAY_TASK_ID=$task bash "$script" >&2
done
echo "$number;cluster"
"""
SRUN = """#!/bin/bash
shift
exec "$@"
"""
PYTHON = """#!/bin/bash
# Notes with which words Python would be started, and where.
{ pwd; printf '%s\\n' "$@"; echo; } >> "$LOG.python"
exit "${STATUS:-0}"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A SLURM of this machine; what it was asked is logged, and Python notes its words."""
    programs = tmp_path / "bin of a 'cluster'"
    programs.mkdir()
    scontrol = '#!/bin/bash\necho "$@" >> "$LOG.scontrol"\n'
    for name, text in (
        ("sbatch", SBATCH), ("srun", SRUN), ("scontrol", scontrol), ("python", PYTHON)
    ):  # fmt: skip
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    return tmp_path / "log"


def run_words(place: Path, output: Path) -> list[str]:
    files = [str(path) for path in sorted(place.glob("*.h5"))]
    return ["run", *files, "--output", str(output), "--config", str(place / "run.yaml")]


def call(words: list[str], monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["poyo-ssl", *words])
    return main(words)


def test_jobs_of_a_cluster_do_what_one_process_does(place, alone, cluster, tmp_path, monkeypatch):
    words = run_words(place, tmp_path / "run")
    plan = ["--plan", "slurm", "--parts=3", "--submit"]
    assert call([*words[:3], *plan, *words[3:]], monkeypatch) == 0
    assert cluster.read_text().splitlines() == [
        "--parsable pretrain.sh",
        "--parsable --dependency=afterany:1 decode.sh",
        "--parsable --dependency=afterany:2 report.sh",
    ]
    calls = [text.splitlines() for text in Path(f"{cluster}.python").read_text().split("\n\n")[:-1]]
    jobs = ["--jobs", "1"]
    assert [call[3 + len(words) :] for call in calls] == [
        *([*jobs, "--part", f"{task}/2", "--pretrain_only"] for task in (1, 2)),
        *([*jobs, "--part", f"{task}/3"] for task in (1, 2, 3)),
        jobs,
    ]
    for where, *called in calls:
        assert (where, called[: 2 + len(words)]) == (os.getcwd(), ["-m", "poyo_ssl", *words])
        assert call(called[2:], monkeypatch) == 0
    require_same(tmp_path / "run", alone)


def test_a_job_that_is_told_to_end_is_started_again(recordings, cluster, tmp_path, monkeypatch):
    config = replace(CONFIG, arms=("scratch",))
    plan = prepare_run(recordings, tmp_path / "run", config)
    script = scripts_of(tmp_path / "run", plan)
    monkeypatch.setenv("STATUS", "143")
    done = subprocess.run(["bash", str(script), "--partition=short"], check=True, text=True,
        capture_output=True,
    )  # fmt: skip
    assert "The report comes with job 2" in done.stdout
    assert cluster.read_text().splitlines() == [  # no encoder is asked for
        "--parsable --partition=short decode.sh",
        "--parsable --dependency=afterany:1 --partition=short report.sh",
    ]
    assert Path(f"{cluster}.scontrol").read_text().splitlines() == [
        "requeue 1", "requeue 1", "requeue 2"
    ]  # fmt: skip


def scripts_of(directory: Path, plan: RunPlan) -> Path:
    return write_slurm_scripts(directory, [plan], ["run", "a b.h5"], num_parts=2)


def test_without_sbatch_the_scripts_are_there_and_it_is_said(
    place, tmp_path, monkeypatch, capsys, cluster
):
    (tmp_path / "bin of a 'cluster'" / "sbatch").write_text(
        "#!/bin/bash\necho no quota >&2; exit 1"
    )
    words = [*run_words(place, tmp_path / "run"), "--plan", "slurm", "--submit"]
    assert call(words, monkeypatch) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "The jobs were not submitted: no quota" in said
    assert (tmp_path / "run" / "slurm" / "submit.sh").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--part", "1/2", "--plan", "slurm"], "give one of them"),
        (["--pretrain_only"], "goes with --part"),
        (["--submit"], "goes with --plan slurm"),
        (["--address", "auto", "--part", "1/2"], "leave --part and --plan out"),
        (["--part", "3/2"], "such as 3/8"),
        (["--plan", "slurm", "--parts", "0"], "parts must be at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(place, tmp_path, capsys, options, message):
    assert main([*run_words(place, tmp_path / "run"), *options]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


# merging -------------------------------------------------------------------------------------


def with_arms(recordings, alone: Path, directory: Path, *arms: str) -> Path:
    """A directory of the same experiment with some arms, and the fits that it plans."""
    plan = prepare_run(recordings, directory, replace(CONFIG, arms=arms))
    for planned in [*plan.pretrainings, *plan.fits]:
        shutil.copytree(alone / planned.name, directory / planned.name)
    return directory


def test_runs_of_different_arms_become_one(recordings, alone, tmp_path, capsys):
    one = with_arms(recordings, alone, tmp_path / "one", "scratch")
    other = with_arms(recordings, alone, tmp_path / "other", "pretrained")
    assert main(["merge", str(one), str(other), "--output", str(tmp_path / "both")]) == 0
    assert "pretrained" in capsys.readouterr().out
    require_same(tmp_path / "both", alone)
    facts = [json.loads((d / "run.json").read_text()) for d in (tmp_path / "both", alone)]
    assert facts[0]["config"] == facts[1]["config"]
    assert facts[0]["seconds"] > 0
    merge([other], one)  # into the first of them
    require_same(one, alone)


def test_halves_of_a_run_become_one_that_goes_on_and_what_is_missing_is_named(
    recordings, alone, tmp_path, monkeypatch
):
    halves = [shutil.copytree(alone, tmp_path / name) for name in ("a", "b")]
    plan = RunPlan.load(alone)
    names = [planned.name for planned in [*plan.pretrainings, *plan.fits]]
    for half, directory in enumerate(halves):
        for name in names[half::2]:
            shutil.rmtree(directory / name)
    with pytest.raises(ValueError, match=rf"{len(names[::2])} of {len(names)} .*{names[0]}.*again"):
        merge(halves[:1], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    merge(halves, tmp_path / "c")
    log_pieces(monkeypatch, tmp_path / "log")
    run(recordings, tmp_path / "c", CONFIG)
    assert not (tmp_path / "log").exists()  # nothing was left to do
    require_same(tmp_path / "c", alone)


def test_runs_of_different_experiments_are_not_merged(recordings, alone, tmp_path):
    other = replace(CONFIG, splits=replace(CONFIG.splits, guard=0.25))
    prepare_run(recordings[:1], tmp_path / "other", replace(other, tasks=("temporal_frequency",)))
    message = r"they differ in recordings, config.tasks, config.splits\. Merge runs of the same"
    with pytest.raises(ValueError, match=message):
        merge([alone, tmp_path / "other"], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_folder_without_a_plan_is_no_run_to_merge(alone, tmp_path):
    with pytest.raises(ValueError, match=r"holds no plan\.json"):
        merge([tmp_path], tmp_path / "merged")
    damaged = shutil.copytree(alone, tmp_path / "damaged")
    plan = json.loads((damaged / PLAN).read_text())
    plan["fits"][0]["seed"] = "../../elsewhere"
    (damaged / PLAN).write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=r"plan\.json' is damaged .*Run the command"):
        merge([damaged], tmp_path / "merged")
