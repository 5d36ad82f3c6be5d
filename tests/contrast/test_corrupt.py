"""Statements of a reference, and some of them wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.contrast.rewrite import corrupt_reference, find_statements

OWN = (
    "what successful attempts check : find_user , get_booking .\nthen they do : cancel_booking , say it is done .\n"
    "where failed attempts go wrong : say sorry , none .\nafter find_user they leave : say sorry instead of "
    "get_booking .\nkeep masked : hidden ."
)
OTHER = "what successful attempts check : get_flight .\nthen they do : send_voucher ."


def test_statements_are_what_stands_behind_the_colons() -> None:
    assert [one.text for one in find_statements(OWN)] == [
        "find_user", "get_booking", "cancel_booking", "say it is done", "say sorry", "say sorry", "get_booking",
    ]  # fmt: skip
    assert [one.text for one in find_statements("First look it up. Then act; not before.")] == [
        "First look it up", "Then act", "not before",
    ]  # fmt: skip
    assert all(OWN.splitlines()[one.line][one.start : one.stop] == one.text for one in find_statements(OWN))


@pytest.mark.parametrize(("share", "wrong"), [(0.0, 0), (0.3, 2), (0.5, 4), (1.0, 7)])
def test_as_many_statements_are_wrong_as_were_asked_for(share: float, wrong: int) -> None:
    spoilt = corrupt_reference(OWN, share, [OTHER], seed=0)
    pairs = zip(find_statements(OWN), find_statements(spoilt), strict=True)
    assert sum(one.text != other.text for one, other in pairs) == wrong
    assert spoilt.splitlines()[-1] == "keep masked : hidden ."


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_larger_share_spoils_the_same_statements_and_more(seed: int) -> None:
    def wrong(share: float) -> set[int]:
        both = zip(
            find_statements(OWN), find_statements(corrupt_reference(OWN, share, [OTHER], seed=seed)), strict=True
        )
        return {at for at, (one, other) in enumerate(both) if one.text != other.text}

    assert wrong(0.25) <= wrong(0.5) <= wrong(1.0)
    assert corrupt_reference(OWN, 0.5, [OTHER], seed=seed) == corrupt_reference(OWN, 0.5, [OTHER], seed=seed)


def test_false_statements_come_from_other_tasks_and_swapped_ones_from_another_part() -> None:
    said = {one.text for one in find_statements(corrupt_reference(OWN, 1.0, [OTHER], seed=0))}
    assert said & {"get_flight", "send_voucher"}
    assert said & {one.text for one in find_statements(OWN)}
    assert said <= {one.text for text in (OWN, OTHER) for one in find_statements(text)}
