"""Sequences against each other: what they share, and where they part."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.contrast.align import Deviation, edit_distance, find_deviations, longest_common_subsequence, medoid_index

WORDS = st.text("abc", max_size=7)


def subsequences(word: str) -> set[str]:
    return {"".join(some) for size in range(len(word) + 1) for some in combinations(word, size)}


@settings(max_examples=80, deadline=None)
@given(first=WORDS, second=WORDS)
def test_an_alignment_is_a_longest_common_subsequence(first: str, second: str) -> None:
    pairs = longest_common_subsequence(first, second)
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    assert len(pairs) == max(map(len, subsequences(first) & subsequences(second)))
    assert edit_distance(first, second) == len(first) + len(second) - 2 * len(pairs)


@pytest.mark.parametrize(
    ("kept", "other", "expected"),
    [
        ("abc", "abc", []),
        ("abc", "ac", [Deviation("a", "b", "c")]),
        ("ac", "abc", [Deviation("a", "c", "b")]),
        ("abc", "axc", [Deviation("a", "b", "x")]),
        ("abc", "ab", [Deviation("b", "c", "nothing")]),
        ("ab", "abx", [Deviation("b", "nothing", "x")]),
        ("abc", "xbcy", [Deviation("nothing", "a", "x"), Deviation("c", "nothing", "y")]),
        ("ab", "", [Deviation("nothing", "a", "nothing")]),
    ],
)
def test_where_one_leaves_the_other(kept: str, other: str, expected: list[Deviation]) -> None:
    assert find_deviations([*kept], [*other]) == expected


def test_the_middle_is_nearest_to_all_then_shortest_then_first() -> None:
    assert medoid_index(["abcd", "abc", "abx", "zzz"]) == 1
    assert medoid_index(["abc", "ab"]) == 1
    assert medoid_index(["ab", "ba"]) == 0
