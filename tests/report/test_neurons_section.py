"""The section on neurons draws what a run kept, in the colours of the page, and stays light."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from poyo_ssl.neurons.figures import new_axes, plot_responses
from poyo_ssl.neurons.storage import save_neurons
from poyo_ssl.report.inline_svg import VARIABLES, page_look, to_svg
from poyo_ssl.report.neurons_section import read_neurons_section
from poyo_ssl.report.results import ReportError, load_results
from tiny_neurons import described_neurons

NAMES = ("511510650-StimA", "527745328-StimA")


@pytest.fixture
def described(rng):
    return [described_neurons(name, rng) for name in NAMES]


def read(directory, described):
    save_neurons(described, directory / "neurons.npz")
    return read_neurons_section(load_results(directory))


def test_every_recording_has_its_panels(run_directory, described):
    section = read(run_directory, described)
    assert [recording.recording_id for recording in section.recordings] == list(NAMES)
    assert section.num_left_out == 0
    for recording in section.recordings:
        assert recording.units == "4 predictable and 8 unpredictable units"
        assert len(recording.panels) == 2  # traces and field of view
        ((_, panels),) = recording.tasks
        assert len(panels) == 5  # heat map, average, tuning, importance and latents
        for panel in [*recording.panels, *panels]:
            ElementTree.fromstring(str(panel.svg))  # is well-formed


def test_tables_say_who_is_selective_and_who_matters(run_directory, described):
    deep = replace(described[1], units=described[1].units.assign(cre_line="Sst"))
    section = read(run_directory, [described[0], deep])
    cells = [row.cells for row in section.selectivity.rows]
    title = described[0].tasks[0].title
    assert cells[0] == [title, "Predictable", "8", "1.00", "1.00", "1.00", "1.00", "1.00"]
    (_, table), *_ = section.importance
    assert table.columns == ["Units", "Number", "ridge", "pretrained"]
    values = np.concatenate([n.tasks[0].importance["ridge"] for n in (described[0], deep)])
    is_predictable = np.concatenate([described[0].is_predictable, deep.is_predictable])
    expected = f"{values[is_predictable].mean():.2f}"
    assert table.rows[0].cells[:3] == ["Predictable", "8", expected]
    assert [row.cells[0] for row in table.rows[2:]] == ["Cux2-CreERT2", "Sst"]


def test_indices_of_angles_are_left_out_where_labels_are_none(run_directory, described):
    (task,) = described[0].tasks
    plain = replace(task, tuning=replace(task.tuning, period=None))
    table = read(run_directory, [replace(described[0], tasks=[plain])]).selectivity
    assert table.columns == ["Task", "Units", "Number", "Sparseness"]


def test_numbers_beside_an_axis_keep_all_their_digits():
    with page_look():
        axes = new_axes()
        axes.plot([0, 1], [0, 0.015])
        axes.set_yticks([0.005, 0.015], ["0.005", "0.015"])
        text = "".join(ElementTree.fromstring(str(to_svg(axes.figure, "a line"))).itertext())
    assert "0.005" in text
    assert "0.015" in text


def test_a_run_without_descriptions_has_no_section(saved_run):
    assert read_neurons_section(load_results(saved_run)) is None


def test_a_damaged_description_is_named(run_directory):
    (run_directory / "neurons.npz").write_bytes(b"PK")
    with pytest.raises(ReportError, match=r"neurons\.npz cannot be understood"):
        read_neurons_section(load_results(run_directory))


def test_figures_take_their_colours_from_the_page_and_share_no_names(described):
    with page_look():
        svg = str(to_svg(plot_responses(described[0], "direction").figure, 'a "name" <b>'))
    assert not [color for color in VARIABLES if color in svg.lower()]
    assert "var(--predictable)" in svg
    assert "var(--unpredictable)" in svg
    assert 'aria-label="a &#34;name&#34; &lt;b&gt;"' in svg
    assert not re.search("<(style|metadata|g id=)", svg)
    assert "font-family" not in svg


def test_as_many_units_as_are_kept_make_a_light_section(run_directory, rng):
    many = described_neurons(NAMES[0], rng, num_units=250)
    average = rng.normal(size=(120, 250))
    responses = replace(many.tasks[0].responses, average=average, times=np.linspace(0, 30, 120))
    heavy = replace(many, tasks=[replace(many.tasks[0], responses=responses)] * 2)
    (recording,) = read(run_directory, [heavy]).recordings
    panels = [*recording.panels, *(panel for _, shown in recording.tasks for panel in shown)]
    assert sum(len(panel.svg) for panel in panels) < 300_000  # 1.5 MB in five recordings
