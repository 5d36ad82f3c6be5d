"""What is equal under NFKC and case-folding folds to the same, and each character knows where it comes from."""

from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.contrast.leakage.normalize import normalize_text


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Basic", "basic"),
        ("\uff22\uff41sic", "basic"),
        ("Stra\u00dfe", "strasse"),
        ("ba\u00adsi\u200bc", "basic"),
        ("\u201cit\u2019s\u201d `x`", "'it's' 'x'"),
        ("\u2460\ufb01nd", "1find"),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_forms_that_look_alike_fold_to_the_same(text: str, folded: str) -> None:
    assert normalize_text(text).text == folded


def test_marks_in_another_order_are_the_same() -> None:
    assert (
        normalize_text("\u00e9\u0323").text
        == normalize_text("\u1eb9\u0301").text
        == normalize_text("e\u0301\u0323").text
    )


def test_every_character_knows_where_it_comes_from() -> None:
    folded = normalize_text("a \ufb01nd")
    assert folded.text == "a find"
    assert folded.source_span(2, 3) == (2, 3) == folded.source_span(3, 4)  # f and i are one character of the text
    assert folded.source_span(2, 6) == (2, 5)
    assert normalize_text("plain").source_span(1, 3) == (1, 3)


LETTERS = st.characters(categories=("Ll", "Lu", "Lo", "Mn", "Nd", "Zs", "Po"))


@settings(max_examples=60, deadline=None)
@given(text=st.text(LETTERS, max_size=12))
def test_stretch_by_stretch_is_as_good_as_the_whole(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert normalize_text(normalize(form, text)).text == normalize_text(text).text


@settings(max_examples=60, deadline=None)
@given(text=st.text(LETTERS, max_size=12))
def test_origins_are_in_order_and_cover_what_is_seen(text: str) -> None:
    folded = normalize_text(text)
    origins = [folded.source_span(at, at + 1) for at in range(len(folded.text))]
    assert origins == sorted(origins)
    assert all(0 <= start < stop <= len(text) for start, stop in origins)
