"""Values as people and programs disguise them: what is caught stays caught, and ordinary words stay."""

import json
import random
import runpy
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.disguises import DISGUISES, VALUES, plant_disguises
from sgcd.contrast.leakage.masking import LiteralMatch, Literals

DOCS = Path(__file__).parents[2] / "docs"
ROWS = json.loads((DOCS / "disguises.json").read_text(encoding="utf-8"))
ALWAYS_CAUGHT = {(row["family"], row["disguise"]) for row in ROWS if row["caught"] == row["of"]}
CAUGHT = [disguise for disguise in DISGUISES if (disguise.family, disguise.name) in ALWAYS_CAUGHT]
BY_CHANCE = {"forty-one eleven ..."}
"""Spoken pairs are ambiguous: thirty two is 32, and 30 and 2."""


def test_the_table_of_disguises_is_what_masking_does() -> None:
    script = runpy.run_path(str(DOCS / "write_disguises.py"))
    assert script["count_caught"](script["TRIALS"], script["SEED"]) == ROWS, "run: python docs/write_disguises.py"
    page = script["PAGE"].read_text(encoding="utf-8")
    assert script["insert_table"](page, ROWS) == page


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**9), disguise=st.sampled_from([one for one in CAUGHT if one.name not in BY_CHANCE]))
def test_what_is_caught_is_caught_for_any_value(seed: int, disguise) -> None:
    for planting in plant_disguises(random.Random(seed), [disguise]):
        assert planting.is_caught(), (planting.value, planting.text)


ORDINARY = """First find the user, then look at the booking. Successful attempts check the fare class before they act;
the failed ones cancel at once. If two or three seats are left, offer one of them. It may take 24 hours. Nobody waits at
the gate. Call get_booking again when the answer is an error, and do not promise a refund that the policy forbids."""


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_an_ordinary_text_stays_as_it_is(seed: int) -> None:
    rng = random.Random(seed)
    kinds = [kind for kind in VALUES if kind not in ("word", "whole amount")]
    assert Literals.from_texts([VALUES[kind](rng) for kind in kinds]).mask(ORDINARY) == ORDINARY


def test_a_date_without_spaces_and_a_number_between_slashes_are_read() -> None:
    assert Literals.from_texts(["1987-03-14", "2"]).mask("14MAR1987 , one/two/three") == "hidden , one/hidden/three"


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("1987-03-14", "1988-03-14 , 15 March 1987 , 14 March 1988 , 1987-03-15"),
        ("14:30", "14:31 , 2:30 am , half past three"),
        ("2:30 am", "14:30 , 2:30 pm"),
        ("+1 212 555 0147", "+1 212 555 0148 , 555-0148"),
        ("Jane Smith", "J. Smyth , Jane Austen , Mr. Jones"),
        ("1234.50", "one thousand two hundred thirty-five"),
        ("4111111111111111", "1112 , 11111 , 0.11"),
    ],
)
def test_another_value_stays(declared: str, text: str) -> None:
    assert Literals.from_texts([declared]).mask(text) == text


def test_a_part_of_a_public_name_stays() -> None:
    literals = Literals(Literals.from_texts(["booking", "oslo"]).placeholders, frozenset({"get_booking"}))
    assert literals.mask("get_booking booking to_oslo toOslo") == "get_booking hidden to_hidden tohidden"


ONE_READING_EACH = (
    "14mar1987|may 2|12/31/1987|19870314|1 234,50|1,234.50|half past 2|2 pm|two/|ninety-nine|a at b.com|c dot d|"
    "&#97;bc|%61bc|=61=62=63|\\u0061bc|a<b>bc|YWJjZ\nGVm|YWJj|MFRGG===|616263|61 62 63|aBc|a&b|1=000|two.é|14 ſep"
).split("|")
VALUES_READ = Literals.from_texts(
    "1987-03-14 2000-05-02 1987-12-31 1000 1234.5 14:30 14:00 2 99 a@b.com c.d abc abcdef 14".split()
)
EVERY_SIGN = "\r\n. . . .\n& % = \\ 00 000 é . . . . jan feb mar apr may jun jul aug sep oct nov dec"
"""What a text may need to be read in every way; it is no part of a literal."""


def find_with_every_sign(text: str) -> list[LiteralMatch]:
    return [match for match in VALUES_READ.find(text + EVERY_SIGN) if match.start < len(text)]


def test_each_reading_is_made_where_it_finds_something() -> None:
    for text in ONE_READING_EACH:
        assert VALUES_READ.find(text) == find_with_every_sign(text), text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*ONE_READING_EACH, " ", "\n"]), min_size=2, max_size=5))
def test_the_readings_that_a_text_is_spared_would_find_nothing(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert VALUES_READ.find(text) == find_with_every_sign(text)


@pytest.mark.parametrize("piece", ["a", "one ", "1 ", "1/", "4a ", "AAAA\n", "at ", "aB", "%41"])
def test_a_long_text_is_masked_in_time_that_grows_with_its_length(piece: str) -> None:
    literals = Literals.from_texts([draw(random.Random(0)) for draw in VALUES.values()])
    text = piece * (50_000 // len(piece))
    before = process_time()
    literals.find(text)
    assert process_time() - before < 2
