"""A text as it reads once all is undone, with the place of every character in what was there."""

from base64 import b64encode
from html import escape
from json import dumps
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.contrast.leakage.decodings import decode_fully, list_decodings


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("caf&eacute; &#65;&#x42; &amp;amp;", "caf\u00e9 AB &"),
        ("a%20b%C3%A9 %zz 50% off", "a b\u00e9 %zz 50% off"),
        ('\\u0041\\ud83d\\ude00 \\x41 \\u{1F600} \\n\\"', 'A\U0001f600 A \U0001f600 \n"'),
        ("%2541 &#37;41", "A A"),
        ("nothing to undo", "nothing to undo"),
    ],
)
def test_escapes_are_undone_layer_by_layer(text: str, read: str) -> None:
    assert decode_fully(text)[0] == read


def test_every_character_stands_where_it_comes_from() -> None:
    undone = list_decodings("x &amp;#65; y")[2]
    assert undone.text == "x A y"
    assert undone.source_span(2, 3) == (2, 11)
    assert undone.source_span(4, 5) == (12, 13)


def test_tags_are_taken_out_and_what_is_no_tag_stays() -> None:
    assert [view.text for view in list_decodings("a<b>c</b><!-- no --> 1 < 2 > 1")] == [
        "a<b>c</b><!-- no --> 1 < 2 > 1",
        "ac 1 < 2 > 1",
    ]


def test_runs_of_base64_and_hex_are_read_where_they_are_text() -> None:
    told = b64encode(b"the word is rosebud").decode()
    assert decode_fully(f"key {told} and 726f7365627564 or internationalisation")[1:] == [
        "the word is rosebud\nrosebud\n"
    ]
    view = list_decodings(f"key {told} .")[1]
    assert view.source_span(0, 3) == (4, 4 + len(told))


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=20),
    change=st.sampled_from([escape, quote, lambda text: dumps(text)[1:-1]]),
)
def test_what_was_escaped_is_among_the_readings(text: str, change) -> None:
    assert text in [view.text for view in list_decodings(change(text))]


@settings(max_examples=100, deadline=None)
@given(text=st.text("a&#;%41\\u0<>/=", max_size=40))
def test_any_text_has_readings_whose_places_lie_in_it(text: str) -> None:
    for view in list_decodings(text):
        for at in range(len(view.text)):
            start, stop = view.source_span(at, at + 1)
            assert 0 <= start < stop <= len(text)
