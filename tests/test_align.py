"""Sequences against each other: what they share, and where they part."""

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.align import (
    Parting,
    align_sequences,
    find_partings,
    is_equal,
    total_similarity,
)

WORDS = st.text("abc", max_size=7)


def subsequences(word: str) -> set[str]:
    return {"".join(some) for size in range(len(word) + 1) for some in combinations(word, size)}


@settings(max_examples=80, deadline=None)
@given(first=WORDS, second=WORDS)
def test_an_alignment_is_a_longest_common_subsequence(first: str, second: str) -> None:
    pairs = align_sequences(first, second, is_equal)
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    assert len(pairs) == max(map(len, subsequences(first) & subsequences(second)))


@settings(max_examples=80, deadline=None)
@given(first=WORDS, second=WORDS)
def test_partings_and_pairs_make_up_both_sequences(first: str, second: str) -> None:
    partings = find_partings(first, second, is_equal)
    assert "".join(first[i] for i in range(len(first)) if not any(i in parting.own for parting in partings)) == "".join(
        second[j] for j in range(len(second)) if not any(j in parting.other for parting in partings)
    )
    assert not any(parting.is_pair for parting in partings)
    assert total_similarity(first, second, is_equal) == total_similarity(second, first, is_equal)
    assert find_partings(first, first, is_equal) == []


@settings(max_examples=80, deadline=None)
@given(words=st.lists(st.sampled_from(["a1", "a2", "b1", "b2", "c1"]), min_size=1, max_size=6), data=st.data())
def test_one_changed_item_is_one_pair(words: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(words) - 1))
    changed = [*words[:index], f"{words[index][0]}9", *words[index + 1 :]]

    def similarity(one: str, other: str) -> int:
        return (one[0] == other[0]) * (10 + (one == other))

    assert find_partings(words, changed, similarity) == [
        Parting(range(index, index + 1), range(index, index + 1), is_pair=True)
    ]


@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_equal_items_are_aligned_as_by_their_similarity(own: list[int], other: list[int]) -> None:
    assert align_sequences(own, other, is_equal) == align_sequences(own, other, lambda a, b: int(a == b))
