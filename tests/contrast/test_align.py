"""Sequences against each other: what they share, and where they part."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.contrast.align import Parting, aligned, distance, middle, partings

WORDS = st.text("abc", max_size=7)


def subsequences(word: str) -> set[str]:
    return {"".join(some) for size in range(len(word) + 1) for some in combinations(word, size)}


@settings(max_examples=80, deadline=None)
@given(first=WORDS, second=WORDS)
def test_an_alignment_is_a_longest_common_subsequence(first: str, second: str) -> None:
    pairs = aligned(first, second)
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    assert len(pairs) == max(map(len, subsequences(first) & subsequences(second)))
    assert distance(first, second) == len(first) + len(second) - 2 * len(pairs)


@pytest.mark.parametrize(
    ("kept", "other", "expected"),
    [
        ("abc", "abc", []),
        ("abc", "ac", [Parting("a", "b", "c")]),
        ("ac", "abc", [Parting("a", "c", "b")]),
        ("abc", "axc", [Parting("a", "b", "x")]),
        ("abc", "ab", [Parting("b", "c", "nothing")]),
        ("ab", "abx", [Parting("b", "nothing", "x")]),
        ("abc", "xbcy", [Parting("nothing", "a", "x"), Parting("c", "nothing", "y")]),
        ("ab", "", [Parting("nothing", "a", "nothing")]),
    ],
)
def test_where_one_leaves_the_other(kept: str, other: str, expected: list[Parting]) -> None:
    assert partings([*kept], [*other]) == expected


def test_the_middle_is_nearest_to_all_then_shortest_then_first() -> None:
    assert middle(["abcd", "abc", "abx", "zzz"]) == 1
    assert middle(["abc", "ab"]) == 1
    assert middle(["ab", "ba"]) == 0
