"""Whatever data are called, each name has one file of its own and the name can be read from it."""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poyo_ssl.file_names import file_name

HOSTILE = [
    "../../../escape", "..", ".", "/etc/passwd", "C:\\x", "a/b", "a:b", "nul\0", "con", "CON.txt",
    "com1 .x", "LPT9", " ", "a ", "a.", "-rf", "~", "%", "%2f", "*", "?", "<b>", "a\nb", "M1", "m1",
    "é", "e\u0301", "ﬁ", "fi", "ß", "SS", "İ", "\ud800", "a__b", "_", "__", "x" * 300, "é" * 300,
    "X" * 300, "x" * 299 + "y",
]  # fmt: skip
ANY = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(min_size=1, max_size=12),
    st.text("aAbB_.- /\\~%é", min_size=1, max_size=5),
    st.text(min_size=100, max_size=400),
)
RESERVED = {"con", "prn", "aux", "nul"} | {f"{p}{n}" for p in ("com", "lpt") for n in range(10)}


def as_disks_see(name: str) -> set[str]:
    """The name on a disk that ignores case, in every form of Unicode."""
    return {unicodedata.normalize(form, name).casefold() for form in ("NFC", "NFD", "NFKC", "NFKD")}


@given(ANY)
def test_a_name_is_one_that_every_file_system_takes(name):
    for made in (file_name(name), file_name(name, marks_case=False), file_name(name, "x", name)):
        assert made.isascii()
        assert made.isprintable()
        assert not set(made) & set('<>:"/\\|?*')
        assert made[0] not in ".- "
        assert made[-1] not in ". "
        assert 0 < len(made) <= 130
        assert made.split(".")[0].strip().lower() not in RESERVED


@given(ANY, ANY)
@example("M1", "m1")
@example("é", "e\u0301")
@example("x" * 300, "X" * 300)
@example("%2f", "/")
def test_different_names_are_different_files_on_every_file_system(one, other):
    if one != other:
        assert not as_disks_see(file_name(one)) & as_disks_see(file_name(other))
        assert file_name(one, marks_case=False) != file_name(other, marks_case=False)


@given(st.lists(ANY, min_size=2, max_size=2), st.lists(ANY, min_size=2, max_size=2))
@example(["a", "_b"], ["a_", "b"])
@example(["a__b", "c"], ["a", "b__c"])
def test_different_pairs_of_names_are_different_files(one, other):
    if one != other:
        assert not as_disks_see(file_name(*one)) & as_disks_see(file_name(*other))


@given(ANY, st.booleans())
def test_a_name_can_be_read_from_its_file(name, marks_case):
    made = file_name(name, marks_case=marks_case)
    if "~" not in made:  # the mark of those that were too long
        assert unquote(made, errors="surrogatepass") == name
    else:
        assert len(name.encode("utf-8", "surrogatepass")) > 130 / 3 - 1


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-+=@,", min_size=1, max_size=100))
def test_a_plain_name_stays_as_it_is(name):
    if not name.startswith("-") and name not in RESERVED:
        assert file_name(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../../escape", "%2e.%2f..%2f..%2fescape"),
        ("M1/2024-01-05", "M1%2f2024-01-05"),
        ("527745328-StimA", "527745328-StimA"),
        ("scratch + teacher", "scratch + teacher"),
        ("nul.h5", "%6eul.h5"),
    ],
)
def test_names_by_hand(name, expected):
    assert file_name(name, marks_case=False) == expected


def test_capitals_are_marked_and_several_names_joined():
    assert file_name("direction", "all", "Sst") == "direction__all__%53st"


def test_an_empty_name_is_refused():
    with pytest.raises(ValueError, match="empty name"):
        file_name("a", "")
