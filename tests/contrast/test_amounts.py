"""Numbers are the same when they are worth the same, however their thousands and decimals are marked."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.leakage.values import find_amounts, possible_amounts


@pytest.mark.parametrize(
    ("number", "worth"),
    [
        ("1234.50", {"1234.5"}),
        ("1.234,50", {"1234.5"}),
        ("1'234'567", {"1234567"}),
        ("12 345", {"12345"}),
        ("1,234", {"1234", "1.234"}),
        ("12,34,567.8", {"1234567.8"}),
        ("1,2,3", set()),
        ("0042", set()),
        ("0.50", {"0.5"}),
        ("b12", set()),
    ],
)
def test_what_a_number_may_be_worth(number: str, worth: set[str]) -> None:
    assert possible_amounts(number) == worth


@settings(max_examples=200, deadline=None)
@given(whole=st.integers(1, 10**9), cents=st.integers(0, 99))
@pytest.mark.parametrize("marks", [",.", ".,", " ,", "'.", "_."])
def test_marks_between_thousands_change_nothing(whole: int, cents: int, marks: str) -> None:
    written = f"{whole:,}".replace(",", marks[0]) + marks[1] + f"{cents:02d}"
    assert Decimal(f"{whole}.{cents:02d}") in map(Decimal, possible_amounts(written))


@pytest.mark.parametrize("money", ["$1,234.50", "EUR 1.234,5", "EUR1234.50", "1234.50usd", "1 234,50 €", "+1'234.50"])
def test_money_is_masked_whatever_stands_around_it(money: str) -> None:
    masked = Literals.from_texts(["1234.50"]).mask(f"you owe {money} .")
    assert "hidden" in masked
    assert "234" not in masked


@pytest.mark.parametrize("other", ["11234.50", "1234.501", "x1234.50", "1234.50x", "3.1234.50", "12345"])
def test_another_number_stays(other: str) -> None:
    assert not [worth for _, _, worth in find_amounts(other) if "1234.5" in worth]
