import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from poyo_ssl.report.page import write_report
from poyo_ssl.report.pictures import encode_png
from poyo_ssl.report.results import ReportError

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The visible text, the elements and the scripts of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict] = []
        self._inside = ""
        self.feed(source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("class") or tag

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data):
        if self._inside == "figure-data":
            self.figures.append(json.loads(data))
        elif not self._inside:
            self.text += data


def read_page(run_directory: Path) -> Page:
    return Page(write_report(run_directory).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page_path(saved_run, tmp_path_factory) -> Path:
    return write_report(saved_run, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def page(page_path) -> Page:
    return Page(page_path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hostile_page_path(hostile_run) -> Path:
    return write_report(hostile_run)


@pytest.mark.parametrize(
    "expected",
    [
        "Does pretraining on predictable units help?",
        "2026-01-31 14:05:12 UTC · took 1 h 11 min · 3 seeds",
        "Pretraining helped: +0.056 [+0.035, +0.077] over scratch, p = 0.004.",
        # what was recorded
        "527745328-StimA 527550471 254 105 147 2 23 min 59 s",
        "43,181 samples of every unit in 3 segments",
        "drifting gratings (478 presentations, 15 min 56 s)",
        # predictability
        "Thresholds: skewness ≤ 3.51 and kurtosis ≤ 22.62 (published)",
        "Cux2-CreERT2 236 3.61 31.27",
        "constant ΔF/F 4",
        # scores
        "Unpredictable units: 192 test samples of 2 recordings",
        "pretrained 3 0.898 [0.867, 0.929] < 0.001 +0.056 [+0.035, +0.077] 0.004",
        "ridge 1 0.914 [0.888, 0.940] < 0.001 – – –",
        "all accuracy scratch 10% 3 [0.686, 0.710] [0.672, 0.724] 0.698 [0.667, 0.729] < 0.001",
        "PSNR (dB)",
        # movie
        "whole test part: SSIM 0.571",
        "frame 740",
        # how this was made
        "poyo-ssl run configs/allen.yaml --output results/allen",
        "torch 2.13.0",
        "Xeon 6, 16 cores, 128 GB of memory, trained on cpu",
        "skewness_max: 3.51",
        "SSIM: structural similarity",
        "de Vries et al. 2020",
    ],
)
def test_the_page_says_what_the_run_saved(page, expected):
    assert expected in page.text


def test_every_section_has_its_figures(page):
    # timeline, clock, predictability, curves, 4 x scores, 2 x label efficiency, 2 x confusion
    assert len(page.figures) == 12
    assert sum(tag == "img" for tag, _ in page.elements) == 8 * (1 + 5) + 8 * (1 + 2)


def test_every_entry_of_the_contents_leads_somewhere(page):
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert len(links) == 10
    assert {link.removeprefix("#") for link in links} <= ids


def test_the_page_loads_nothing_from_outside(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert re.match(r"(data:|#|$)", attributes.get(name) or ""), (tag, attributes)
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_the_library_of_figures_is_inlined_once(page_path):
    source = page_path.read_text(encoding="utf-8")
    assert source.count("* plotly.js v") == 1


def test_only_simulated_data_carry_the_badge(page, hostile_page_path):
    badge = "Simulated data: not evidence about real cells"
    assert badge not in page.text
    assert badge in Page(hostile_page_path.read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    "sentences",
    [
        {
            "recordings.json": "no recordings.json, so the table of recordings is not shown",
            "units.csv": "no units.csv or no predictability.json, so the predictability",
            "movie": "no decoded movie frames, so they are not shown",
        },
        {
            "splits.json": "no splits.json, so the parts of each recording",
            "clock.json": "no clock.json, so how many units respond, and when, is not shown",
            "predictability.json": "no units.csv or no predictability.json, so the predictability",
            "confusion": "no confusion matrices, so they are not shown",
        },
        {"curves.csv": "no curves.csv, so learning curves are not shown"},
        {"summary.csv": "no summary.csv, so means with intervals are not shown"},
    ],
    ids=lambda sentences: ", ".join(sentences),
)
def test_a_missing_file_drops_its_section_with_a_sentence(run_directory, page, sentences):
    for name in sentences:
        path = run_directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    without = read_page(run_directory)
    assert not [sentence for sentence in sentences.values() if sentence not in without.text]
    assert "so they are not shown" not in page.text
    assert "This run directory has no" not in page.text


def test_the_essential_files_alone_make_a_page(run_directory):
    for path in run_directory.iterdir():
        if path.name not in ("run.json", "scores.csv"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = {"title": "Bare", "is_simulated": False, "tasks": []}
    (run_directory / "run.json").write_text(json.dumps(run))
    page = read_page(run_directory)
    assert page.figures == []
    scores = pd.read_csv(run_directory / "scores.csv")
    ridge = scores[
        (scores["task"] == "direction")
        & (scores["units"] == "all")
        & (scores["arm"] == "ridge")
        & (scores["label_fraction"] == 1)
        & (scores["metric"] == "accuracy")
    ]["value"]
    assert f"{ridge.mean():.3f}" in page.text.split("All units")[1].split("Mean")[1].split()[:3]


def test_text_from_files_cannot_become_part_of_the_page(hostile_page_path):
    source = hostile_page_path.read_text(encoding="utf-8")
    page = Page(source)
    assert EVIL not in source
    assert html.escape(EVIL) in source
    assert EVIL in page.text
    assert f"<option>{html.escape(EVIL)}</option>" in source
    assert sum(tag == "svg" for tag, _ in page.elements) == 2 * 7
    assert all(
        attributes.get("src", "").startswith("data:")
        for tag, attributes in page.elements
        if tag == "img"
    )
    num_scripts = sum(tag == "script" for tag, _ in page.elements)
    assert num_scripts == len(page.figures) + 2
    # plotly reads a subset of HTML in its labels: there the name is escaped once more
    labels = page.figures[0]["layout"]["yaxis"]["ticktext"]
    assert labels[0].startswith("&lt;script&gt;alert(1)&lt;/script&gt;<br>")


def test_only_the_scripts_of_the_report_may_run(page):
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert len(re.findall(r"'sha256-[\w+/]{43}='", policy)) == 2
    assert "script-src 'unsafe-inline'" not in policy


def test_the_report_goes_where_it_is_asked_to_and_leaves_nothing_beside_it(page_path):
    assert [path.name for path in page_path.parent.iterdir()] == ["report.html"]


def test_the_report_goes_into_the_run_directory_by_default(hostile_page_path):
    assert hostile_page_path.name == "report.html"
    assert (hostile_page_path.parent / "run.json").is_file()


def test_the_same_run_gives_the_same_page(saved_run, page_path, tmp_path):
    again = write_report(saved_run, tmp_path / "again.html")
    assert again.read_bytes() == page_path.read_bytes()


def test_a_report_that_fails_leaves_the_previous_one(run_directory):
    path = run_directory / "report.html"
    path.write_text("yesterday's")
    (run_directory / "scores.csv").write_text("")
    with pytest.raises(ReportError):
        write_report(run_directory)
    assert path.read_text() == "yesterday's"


def test_arms_without_a_movie_frame_in_common_are_refused(run_directory):
    path = run_directory / "movie" / "natural_movie_one__repeat__unpredictable__scratch.npz"
    saved = dict(np.load(path))
    np.savez(path, **{**saved, "movie_frame": saved["movie_frame"] + 1})
    with pytest.raises(ReportError, match="no movie frame in common"):
        write_report(run_directory)


def test_a_picture_survives_its_encoding(rng):
    picture = rng.integers(0, 256, (6, 9), dtype=np.uint8)
    encoded = encode_png(picture).removeprefix("data:image/png;base64,")
    decoded = imread(io.BytesIO(base64.b64decode(encoded)))
    np.testing.assert_array_equal(np.round(255 * decoded[..., 0]).astype(np.uint8), picture)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to draw the page")
def test_a_browser_draws_every_figure_without_complaint(hostile_page_path, tmp_path):
    path = hostile_page_path
    num_figures = len(Page(path.read_text(encoding="utf-8")).figures)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
             "--virtual-time-budget=5000"]  # fmt: skip
    browser = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in browser.stderr
    drawn = Page(browser.stdout)
    plots = [
        a
        for tag, a in drawn.elements
        if tag == "div" and "js-plotly-plot" in (a.get("class") or "")
    ]
    assert len(plots) == num_figures == 12
    surfaces = [
        a for tag, a in drawn.elements if tag == "svg" and "main-svg" in (a.get("class") or "")
    ]
    assert len(surfaces) >= num_figures
    buttons = {a["data-title"] for _, a in drawn.elements if "data-title" in a}
    assert "Download plot" in buttons
    assert not [title for title in buttons if "Share" in title]  # would upload the figure
    assert EVIL in drawn.text
    assert "error" not in drawn.text.lower()


def test_a_run_of_labels_alone_has_no_section_of_movies(run_directory):
    for name in ("scores.csv", "summary.csv"):
        table = pd.read_csv(run_directory / name)
        table[table["task"] == "direction"].to_csv(run_directory / name, index=False)
    page = read_page(run_directory)
    assert "Confusion matrices" in page.text
    assert "Decoded movie" not in page.text


def test_a_run_without_networks_has_no_section_of_learning_curves(run_directory):
    curves = pd.read_csv(run_directory / "curves.csv")
    curves.iloc[:0].to_csv(run_directory / "curves.csv", index=False)
    assert "Learning curves" not in read_page(run_directory).text


def test_few_test_trials_of_a_class_are_warned_of_and_counted(run_directory):
    summary = pd.read_csv(run_directory / "summary.csv")
    few = summary.assign(num_test=16, num_right=summary["num_right"] / 12, fewest_of_a_class=2)
    few.to_csv(run_directory / "summary.csv", index=False)
    text = read_page(run_directory).text
    assert "Only 2 test trials of the rarest class (below 10)" in text
    assert "ridge 1 14.6/16 0.914 [0.888, 0.940]" in text


def test_enough_test_trials_need_no_warning(page):
    assert "of the rarest class" not in page.text


def test_a_phone_scrolls_panels_and_shows_no_buttons_over_them(page, page_path):
    plots = [a["class"] for tag, a in page.elements if "plot" in (a.get("class") or "").split()]
    # all but the timeline, predictability and clock have panels side by side
    assert plots.count("plot panels") == len(plots) - 3
    assert 'displayModeBar: window.innerWidth < narrow ? false : "hover"' in page_path.read_text()
