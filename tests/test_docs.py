"""What the documents tell a reader to type works as written, in the folder the reader is in.

Documents are read as text. Every ``poyo-ssl`` command in them is parsed, so each option and value
is one that there is, and the files that it names are there. Those in fenced blocks are also run,
save the ones that take hours or fetch data (:func:`is_long`); ``run`` as the trial that ``--quick``
makes of it. Python and YAML blocks and the cells of notebooks are run and read. Fits stop after a
few steps, and everything is done in one process: what is tested is that it runs, not how well it
scores.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

import poyo_ssl as ps
from documented_folder import build_folder
from hub_server import Hub, pretend_to_be_the_hub
from poyo_ssl import doctor
from poyo_ssl.cli import build_parser, main
from poyo_ssl.cli.commands import COMMANDS
from poyo_ssl.cli.options import gather_lists
from poyo_ssl.decoders import value_decoders
from poyo_ssl.finetuning import finetune, teacher_choice
from poyo_ssl.predictability import screening
from poyo_ssl.pretraining import pretrain
from poyo_ssl.recordings import preparation
from poyo_ssl.recordings.simulation.simulator import simulate_observatory
from poyo_ssl.training.engine import fit
from shared_data import DATA, ROOT, needs_shared_data

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
    *sorted((ROOT / "docs" / "notebooks").glob("*.md")),
]
NOTEBOOKS = "docs/notebooks/"
CELL = "{code-cell}"
"""What a cell of a notebook is called; it is python, below lines of options."""
SHELLS = ("sh", "bash", "console")
SHARED = "../shared/data"
PLACEHOLDERS = {
    "FILE_OR_DIR...": "session.nwb",
    "FILE_OR_DIR": "session.nwb",
    "FILE...": "session.nwb",
    "DIR": "runs/encoder",
    "RUN": "runs/decoder",
    "SESSION": "session.nwb",
    "LOG": "mouse989/log.txt",
}
"""Words that stand for a path where the text speaks of a command, not in blocks."""


class Block(NamedTuple):
    """A fenced block, or a command in a line of text."""

    document: str
    line: int
    language: str
    text: str

    @property
    def param(self):
        marks = [needs_shared_data] if SHARED in self.text else []
        return pytest.param(self, id=f"{self.document}:{self.line}", marks=marks)


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    return [
        Block(
            name_of(path),
            text[: found.start()].count("\n") + 1,
            found[1].replace(CELL, "python"),
            found[2],
        )
        for found in re.finditer(
            r"^```(\S*)[^\n]*\n(?::[^\n]*\n)*(.*?)^```$", text, flags=re.M | re.S
        )
    ]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def spans_of(path: Path) -> list[Block]:
    """Commands in lines of text, between single backticks."""
    text = re.sub(
        r"^```.*?^```$",
        lambda block: "\n" * block[0].count("\n"),
        path.read_text(),
        flags=re.M | re.S,
    )
    return [
        Block(
            name_of(path), text[: found.start()].count("\n") + 1, "sh", " ".join(found[1].split())
        )
        for found in re.finditer(r"`((?:poyo-ssl|python benchmarks|make) [^`]+)`", text)
    ]


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]
SPANS = [block for path in DOCUMENTS for block in spans_of(path)]


def params(*languages: str) -> list:
    return [block.param for block in BLOCKS if block.language in languages]


def commands_of(block: Block) -> list[list[str]]:
    """The words of every command, without what starts it on a cluster."""
    text = block.text.replace("\\\n", " ")
    if block in SPANS:
        for word, path in PLACEHOLDERS.items():
            text = re.sub(rf"(?<!\S){re.escape(word)}(?!\S)", path, text)
    commands = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [_inner(words) for words in commands if words]


def _inner(words: list[str]) -> list[str]:
    if words[0] == "torchrun":
        return ["poyo-ssl", *words[words.index("poyo_ssl") + 1 :]]
    return words[1:] if words[0] == "srun" else words


def is_long(block: Block, words: list[str]) -> bool:
    """Whether a command takes hours, fetches data, is for a cluster, or is run in a notebook."""
    fetches = words[1] == "download" and "--output" in words
    of_cluster = "srun" in block.text or "torchrun" in block.text
    in_cells = block.document.startswith(NOTEBOOKS)
    return any(
        (fetches, of_cluster, in_cells, SHARED in block.text, *("configs/" in w for w in words))
    )


@pytest.fixture(scope="module")
def few_steps():
    """Every fit stops after two steps; recordings are worked on in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_decoders, "MOST_KERNEL_WINDOWS", 100)
        patch.setattr(teacher_choice, "MAX_FOLDS", 2)
        for module in (finetune, pretrain):
            patch.setattr(module, "fit", fit_two_steps)
        for module, name in ((preparation, "iterate_in_parallel"), (screening, "map_in_parallel")):
            patch.setattr(module, name, in_this_process(getattr(module, name)))
        patch.setattr(doctor, "fit_small_decoder", lambda: (1.0, 0.25))  # two steps learn nothing
        yield


def fit_two_steps(module, *batches, **options):
    module.training_config = replace(module.training_config, max_steps=2, valid_every=2)
    return fit(module, *batches, **options)


def in_this_process(function):
    return lambda *given, workers, address, **options: function(
        *given, workers=1, address=None, **options
    )


@pytest.fixture(scope="module")
def template(few_steps, tmp_path_factory):
    return build_folder(tmp_path_factory.mktemp("reader") / "poyo-ssl")


@pytest.fixture
def folder(template, tmp_path, monkeypatch):
    """A fresh folder for every block, and the one that the reader is in."""
    if DATA.is_dir():
        (tmp_path / "shared").symlink_to(DATA.parent)
    folder = tmp_path / "poyo-ssl"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def require_parsed(words: list[str]) -> None:
    """Parses a command, which imports and checks every config that it fills."""
    parser = build_parser(words[1:])
    chosen = parser._subcommands_action._name_parser_map[words[1]]
    options = parser.parse_args(gather_lists(words[1:], chosen))[words[1]]
    for path in [*(options.get("files") or []), *(options.get("pretrain_on") or [])]:
        is_output_of_another = path.parts[0] == "runs"
        is_there = path.exists() or any(path.parent.glob(path.name))  # as a shell would see it
        assert is_there or is_output_of_another, f"{path} is not there"


def require_command(words: list[str]) -> None:
    """Checks a command that is not ours to run, or that takes long."""
    match words:
        case ["poyo-ssl", name] | ["poyo-ssl", name, "--help", *_]:
            assert name in COMMANDS
        case ["poyo-ssl", *_]:
            try:
                require_parsed(words)
            except SystemExit as stop:
                if stop.code:  # 0: it asked for help
                    pytest.fail(f"{shlex.join(words)} is refused")
        case ["make", *targets]:
            rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M)
            assert {target for target in targets if "=" not in target} <= set(rules)
        case [python, script, *options] if python.endswith("python"):
            assert (ROOT / script).is_file()
            scripts = (ROOT / "benchmarks").glob("*.py")  # some share their options
            source = "".join(path.read_text() for path in scripts)
            for option in options:
                assert not option.startswith("--") or option.split("=")[0] in source, option
        case ["pip", "install", *packages]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            extras = re.findall(r"poyo-ssl\[(\w+)\]", " ".join(packages))
            assert set(extras) <= set(project["optional-dependencies"])


# shell ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", params(*SHELLS))
def test_a_block_of_commands_runs(block, folder, capsys):
    (folder / "source.yaml").write_text(source_of_recordings())
    for words in commands_of(block):
        if words[0] != "poyo-ssl" or words[1] == "demo" or is_long(block, words):
            require_command(words)
            continue
        trial = ["--quick", "--jobs=1"] if words[1] == "run" else []
        try:
            status = main([*words[1:], *trial])
        except SystemExit as stop:
            status = stop.code
        assert status == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("block", [span.param for span in SPANS])
def test_a_command_in_the_text_is_one_that_there_is(block, folder):
    for words in commands_of(block):
        require_command(words)


# YAML ----------------------------------------------------------------------------------------


def source_of_recordings() -> str:
    """The block of docs/recordings.md that is called source.yaml."""
    [text] = [block.text for block in BLOCKS if block.text.startswith("# source.yaml\n")]
    return text


@pytest.mark.parametrize("block", params("yaml"))
def test_a_block_of_yaml_is_read_by_its_bare_name(block, folder):
    """Each is the ``source.yaml`` of a recording, or a config of ``run``."""
    (folder / "block.yaml").write_text(block.text)
    written = yaml.safe_load(block.text)
    if not set(written) <= {field.name for field in fields(ps.SourceConfig)}:
        require_parsed(
            ["poyo-ssl", "run", "session.nwb", "--output", "o", "--config", "block.yaml"]
        )
        return
    words = ["poyo-ssl", "inspect", "mouse989", "--source", "block.yaml"]
    require_parsed(words)
    if "suite2p" in written:
        assert main(words[1:]) == 0


# Python --------------------------------------------------------------------------------------


def python_of(document: str) -> list[Block]:
    """Blocks of a document, which a reader pastes one after the other; those of real data apart."""
    blocks = [b for b in BLOCKS if (b.document, b.language) == (document, "python")]
    real = [block for block in blocks if SHARED in block.text]
    text = "\n".join(block.text for block in blocks if block not in real)
    return [*([Block(document, 0, "python", text)] if text else []), *real]


def of_ones_own() -> dict[str, object]:
    """What only the reader has: arrays, and the camera."""
    rng = np.random.default_rng(0)
    onsets = 2.0 + 3.0 * np.arange(20)
    return {
        "df_over_f": rng.normal(size=(2000, 5)),
        "onsets": onsets,
        "directions": np.arange(20) % 4 * 90.0,
    }


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[None]:
    """Where blocks push to and load from."""
    with Hub() as hub:
        pretend_to_be_the_hub(hub, monkeypatch, tmp_path / "cache")
        yield


@pytest.fixture
def notebook(monkeypatch) -> Iterator[None]:
    """Notebooks invent small recordings, and are shown to nobody; figures are closed."""
    monkeypatch.setattr(
        ps,
        "simulate_observatory",
        lambda config: simulate_observatory(
            replace(config, units_per_recording=15, movie_repeats=min(3, config.movie_repeats))
        ),
    )
    ipython = Mock(version_info=(9, 0), get_ipython=lambda: None)  # matplotlib asks
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", Mock())
    yield
    plt.close("all")


@pytest.mark.parametrize("block", [b.param for path in DOCUMENTS for b in python_of(name_of(path))])
def test_blocks_of_python_run(block, folder, hub, notebook):
    if block.document.startswith(NOTEBOOKS):
        shutil.rmtree(folder / "runs")  # a notebook begins without results
    exec(compile(block.text, f"{block.document}:{block.line}", "exec"), of_ones_own())


# the documents themselves --------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_to_a_file_and_a_heading_leads_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        target, _, heading = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        linked = path.parent / target if target else path
        assert linked.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.M)
            assert heading in [slug(title) for title in titles], link


def slug(title: str) -> str:
    """The anchor that a heading gets: lower case, hyphens for spaces, no other marks."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_there_are_blocks_of_every_kind():
    assert {"sh", "bash", "python", "yaml"} <= {block.language for block in BLOCKS}
    known = {*SHELLS, "python", "yaml", "text", ""}
    written = {block.language for block in BLOCKS if not block.language.startswith("{")}
    assert written <= known


def test_the_page_of_the_python_interface_names_all_of_it():
    text = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, flags=re.M)) == set(ps.__all__)
