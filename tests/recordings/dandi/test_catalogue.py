from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from poyo_ssl.recordings.dandi.catalogue import CITATION, STIMULI, describe_assets, find_sessions

PUBLISHED = Path(__file__).resolve().parents[3] / "../shared/data/dandi_000728_assets.tsv"


def test_the_catalogue_says_what_the_archive_publishes():
    if not PUBLISHED.exists():
        pytest.skip("needs shared/data/dandi_000728_assets.tsv beside the checkout")
    published = pd.read_csv(PUBLISHED, sep="\t", dtype=str).set_index("session_id").sort_index()
    ours = find_sessions().set_index("session_id").sort_index()
    assert list(ours.index) == list(published.index)
    assert (ours["path"] == published["path"]).all()
    assert (ours["sha256"] == published["sha256"]).all()
    assert (ours["num_bytes"] == published["bytes"].astype("int64")).all()
    assert (ours["stimulus_set"] == published["stimulus_set"]).all()
    assert (ours["subject_id"] == published["subject_id"]).all()


def test_the_catalogue_holds_506_containers_of_three_sessions():
    assets = find_sessions()
    assert len(assets) == 3 * 506
    assert assets["session_id"].is_unique
    assert assets["sha256"].is_unique
    assert assets["subject_id"].nunique() == 271
    assert assets["stimulus_set"].value_counts().to_dict() == {
        "A": 506,
        "B": 506,
        "C": 114,
        "C2": 392,
    }


def test_sessions_are_found_by_number_or_text_alone_or_several():
    by_number = find_sessions(session_id=527745328)
    assert by_number["recording_id"].tolist() == ["527745328-StimA"]
    assert find_sessions(session_id=["527745328", 527676626])["stimulus_set"].tolist() == ["B", "A"]
    of_a_mouse = find_sessions("A", subject_id="491604967")
    assert set(of_a_mouse["stimulus_set"]) == {"A"}
    assert set(of_a_mouse["subject_id"]) == {"491604967"}


def test_an_unknown_session_is_refused_with_the_ids_that_come_near():
    with pytest.raises(ValueError, match=r"no session_id '527745329'.*nearest: 527745328"):
        find_sessions(session_id="527745329")


def test_every_unknown_value_is_named_at_once():
    with pytest.raises(
        ValueError, match=r"stimulus_set 'D' \(found: A, B, C, C2\).*subject_id '1'"
    ):
        find_sessions("D", subject_id=1)


def test_no_value_at_all_is_not_taken_for_every_session():
    with pytest.raises(ValueError, match="No session_id was given"):
        find_sessions(session_id=[])


def test_conditions_that_exclude_each_other_are_explained():
    with pytest.raises(ValueError, match="session_id 527745328 has 527745328-StimA"):
        find_sessions("B", session_id="527745328")


def test_the_description_adds_up():
    table = describe_assets(find_sessions()).set_index("stimulus_set")
    assert set(table.index) == {*STIMULI, "all"}
    sets = table.drop(index="all")
    assert sets["sessions"].sum() == table.loc["all", "sessions"] == 1518
    assert sets["size_gb"].sum() == pytest.approx(table.loc["all", "size_gb"])
    assert table.loc["all", "size_gb"] == pytest.approx(520.888205962)
    assert table.loc["all", "mice"] == 271


def test_changing_a_result_leaves_the_catalogue_as_it_is():
    assets = find_sessions()
    assets["sha256"] = ""
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in find_sessions()["sha256"])


def test_the_citation_names_paper_licence_and_terms():
    for part in ("de Vries", "2020", "CC-BY-4.0", "alleninstitute.org/terms"):
        assert part in CITATION
