"""Literals are found in whatever form, and replaced."""

import random
from unicodedata import normalize

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sgcd.contrast.leakage.masking import PLACEHOLDER, Literals


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("your cabin is Basic thank you", "your cabin is hidden thank you"),
        ("basically nothing", "basically nothing"),
        ("b12 b123 (b12)", "hidden b123 (hidden)"),
        ("new\n  YORK, newyork", "hidden, hidden"),
        ("cafe\u0301 or CAF\u00c9, no cafe", "hidden or hidden, no cafe"),
        ("'b12' \u201cb12\u201d \uff42\uff11\uff12 b\u200b12", "'hidden' \u201chidden\u201d hidden hidden"),
        ("say \\u0063 caf\\u00e9", "say \\u0063 hidden"),
        ("key-sk12345678901x", "key-hiddenx"),
        ("b12b12 b12_b12", "b12b12 hidden_hidden"),
        ("nothing here", "nothing here"),
    ],
)
def test_a_literal_is_masked_in_every_form_and_only_as_a_word(text: str, masked: str) -> None:
    literals = Literals.from_texts(["basic", " \u201cB12\u201d ", "", " ", "New York", "caf\u00e9", "sk12345678901"])
    assert literals.mask(text) == masked


def test_a_letter_and_its_marks_are_replaced_together() -> None:
    assert Literals.from_texts(["t\u00e9\u0323"]).mask("t\u1eb9\u0301 t\u00e9\u0323 t\u00e9") == "hidden hidden t\u00e9"


def test_a_letter_with_a_mark_is_another_letter() -> None:
    assert Literals.from_texts(["cafe"]).mask("caf\u00e9 cafe\u0301 cafe") == "caf\u00e9 cafe\u0301 hidden"


def test_short_literals_are_left_out_unless_asked_for() -> None:
    assert Literals.from_texts(["no", "yes"], min_chars=3).mask("no yes") == "no hidden"
    assert Literals.from_texts(["no", "yes"]).mask("no yes") == "hidden hidden"


def test_the_same_value_has_the_same_placeholder_whatever_its_form() -> None:
    declared, seen = Literals.from_texts(["Hunter2"]), Literals.from_texts(["hunter2", "token7"], "secret")
    assert declared.union(seen).mask("hunter2 HUNTER2 token7") == "hidden hidden hidden_secret"
    assert seen.union(declared).mask("hunter2 HUNTER2 token7") == "hidden_secret hidden_secret hidden_secret"


def test_overlapping_occurrences_are_all_found_and_replaced_once() -> None:
    literals = Literals.from_texts(["new york", "york times"])
    text = "the new york times"
    assert [text[one.start : one.stop] for one in literals.find(text)] == ["new york", "york times"]
    assert literals.mask_and_count(text) == ("the hidden", 1)
    assert Literals.from_texts(["new york times", "york"]).mask_and_count(text) == ("the hidden", 1)


def test_what_becomes_a_literal_by_masking_is_masked_too() -> None:
    assert Literals.from_texts(["b12", "hidden hidden"]).mask("b12 b12 mia") == "hidden mia"


def test_quotes_alone_are_no_literal() -> None:
    assert Literals.from_texts(['"', "\u201c\u201d", "''"]).placeholders == {}


def test_the_placeholder_is_no_literal() -> None:
    assert Literals.from_texts(["hidden", "HIDDEN_CODE"]).placeholders == {}


SECRET = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf", "Co", "Cn")), min_size=1, max_size=14
)
DRESSED = [
    str, lambda text: normalize("NFKC", text), lambda text: normalize("NFKD", text),
    lambda text: f'"{text}"', lambda text: f"\u201c{text}\u201d", lambda text: text.replace(" ", "\n\t"),
]  # fmt: skip
FORMS = [*DRESSED, str.upper, str.title, str.casefold, lambda text: f"'{text.swapcase()}'"]


@settings(max_examples=60, deadline=None)
@given(secrets=st.lists(SECRET, min_size=1, max_size=4), seed=st.integers(0, 999))
def test_no_literal_is_left_in_a_masked_text(secrets: list[str], seed: int) -> None:
    """Property 21: random secrets in random cases, quotes and forms."""
    literals = Literals.from_texts(secrets)
    assume(not any(PLACEHOLDER in literal or literal in PLACEHOLDER for literal in (s.casefold() for s in secrets)))
    rng = random.Random(seed)
    hidden = [rng.choice(FORMS)(rng.choice(secrets)) for _ in range(6)]
    masked = literals.mask(" and so , ".join(hidden))
    assert literals.find(masked) == []
    # an occurrence is looked for by its definition, not by the code under test
    for secret in secrets:
        bare = normalize("NFKC", secret).strip("\"'` ")
        if bare.isalnum() and bare.isascii():
            assert bare.casefold() not in masked.casefold().replace("\n", " ").split()


@settings(max_examples=60, deadline=None)
@given(secret=SECRET, form=st.sampled_from(FORMS))
def test_every_form_of_a_secret_is_found(secret: str, form) -> None:
    literals = Literals.from_texts([secret])
    assume(literals.placeholders)
    assume(form in DRESSED or secret.isascii())  # some letters, once their case is changed, have no way back
    text = f"it is {form(secret)} ."
    assert literals.mask(text) != text
