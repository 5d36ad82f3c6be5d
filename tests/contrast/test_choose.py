"""Which siblings a writer reads: the published rule, its fallbacks, and what holds in every case."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.group import rollout
from sgcd.contrast.choose import ChosenTraces, choose_traces, split_by_outcome
from sgcd.contrast.trace import Trace, TraceTurn, render_trace
from sgcd.records import Rollout, Verdict


def size(text: str) -> int:
    """One for each said word and each letter heard; labels cost nothing."""
    said = [line.removeprefix("say : ") for line in text.splitlines() if line.startswith("say : ")]
    heard = [line.removeprefix("heard : ") for line in text.splitlines() if line.startswith("heard : ")]
    return sum(len(line.split()) for line in said) + sum(map(len, heard))


def group(good: Sequence[int], bad: Sequence[int]) -> list[Trace]:
    """Traces of these lengths, successes first."""
    told = [(True, length) for length in good] + [(False, length) for length in bad]
    return [
        Trace(success, (TraceTurn(" ".join(["word"] * length)),), sibling)
        for sibling, (success, length) in enumerate(told)
    ]


def found(chosen: ChosenTraces | None) -> tuple[str, list[int]]:
    assert chosen is not None
    return chosen.selection, [trace.sibling for trace in chosen.traces]


@pytest.mark.parametrize(
    ("good", "bad", "budget", "expected"),
    [
        ([3, 4], [5, 6, 7], 25, ("all", [0, 1, 2, 3, 4])),
        ([3, 4], [5, 6, 7], 20, ("even", [0, 1, 3, 4])),
        ([3, 4], [5, 6, 7], 24, ("even", [0, 1, 3, 4])),  # failures are more: the longest
        ([5, 6, 3], [4, 4], 21, ("even", [0, 2, 3, 4])),  # successes are more: the shortest
        ([3, 3, 3], [7, 7, 7], 29, ("fewer", [0, 1, 3, 4])),  # equally many, ties to the lower index
        ([3, 4], [5, 6, 7], 19, ("fewer", [0, 4])),
        ([3, 4], [5, 6, 7], 10, ("fewer", [0, 4])),
        ([3, 4], [5, 6, 7], 9, ("fewer", [0, 3])),  # the longest failure that still fits
        ([3, 4], [5, 6, 7], 8, ("fewer", [0, 2])),
        ([2, 3, 9], [4, 9, 9, 9], 18, ("fewer", [0, 1, 3, 4])),  # one long failure leaves room for the short one
        ([4], [5, 9, 30], 10, ("fewer", [0, 1])),  # one of each already, yet the longest does not fit
    ],
)
def test_the_rule(good: list[int], bad: list[int], budget: int, expected: tuple[str, list[int]]) -> None:
    assert found(choose_traces(group(good, bad), budget, size)) == expected


def test_a_pair_that_is_too_long_has_its_observations_shortened() -> None:
    heard = ("x" * 5000,)
    traces = [
        Trace(success, (TraceTurn("a", replies=heard), TraceTurn("b")), i) for i, success in enumerate((True, False))
    ]
    chosen = choose_traces(traces, 8200, size)
    assert found(chosen) == ("shortened", [0, 1])
    assert chosen and all("1000 characters cut" in trace.turns[0].replies[0] for trace in chosen.traces)
    chosen = choose_traces(traces, 800, size)
    assert chosen and all("4700 characters cut" in trace.turns[0].replies[0] for trace in chosen.traces)


def test_then_middle_turns_go_from_the_longer_trace_first() -> None:
    turns = tuple(TraceTurn(" ".join([str(number)] * 10)) for number in range(8))
    traces = [Trace(True, turns[:3], 0), Trace(False, turns, 1)]
    chosen = choose_traces(traces, 95, size)
    assert found(chosen) == ("cut", [0, 1])
    assert chosen is not None
    assert chosen.traces[0].turns == turns[:3]
    assert [turn.text[:1] for turn in chosen.traces[1].turns] == ["0", "1", "", "6", "7"]
    assert chosen.traces[1].turns[2].replies == ("... 4 turns left out ...",)


def test_still_too_long_is_no_choice_at_all() -> None:
    turns = tuple(TraceTurn(" ".join([str(number)] * 10)) for number in range(8))
    traces = [Trace(True, turns, 0), Trace(False, turns, 1)]
    least = 40 + 2 * len("... 6 turns left out ...")
    assert found(choose_traces(traces, least, size)) == ("cut", [0, 1])
    assert choose_traces(traces, least - 1, size) is None


@pytest.mark.parametrize("traces", [group([3, 4], []), group([], [3]), []])
def test_siblings_that_do_not_mix_are_no_choice(traces: list[Trace]) -> None:
    assert choose_traces(traces, 10**6, size) is None


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(good=LENGTHS, bad=LENGTHS, budget=st.integers(1, 400), order=st.randoms(use_true_random=False))
def test_what_holds_in_every_case(good: list[int], bad: list[int], budget: int, order) -> None:
    """Property 20: fits, both classes, equally many once some are left out, the order of the input is nothing."""
    traces = group(good, bad)
    chosen = choose_traces(traces, budget, size)
    mixed_up = list(traces)
    order.shuffle(mixed_up)
    assert choose_traces(mixed_up, budget, size) == chosen
    if chosen is None:
        assert min(good) + min(bad) > budget
        return
    wins = [trace for trace in chosen.traces if trace.success]
    losses = [trace for trace in chosen.traces if not trace.success]
    assert sum(size(render_trace(trace)) for trace in chosen.traces) <= budget
    assert wins and losses
    assert [trace.sibling for trace in chosen.traces] == sorted(trace.sibling for trace in chosen.traces)
    if chosen.selection == "all":
        assert set(chosen.traces) == set(traces)
    else:
        assert len(wins) == len(losses) <= min(len(good), len(bad))
        assert sorted(size(render_trace(trace)) for trace in wins) == sorted(good)[: len(wins)]


def graded(*rewards: float, success: float = 1.0) -> list[Rollout]:
    rollouts = [rollout("x", sibling=sibling) for sibling in range(len(rewards))]
    return [
        replace(each, verdict=Verdict(reward, reward >= success))
        for each, reward in zip(rollouts, rewards, strict=True)
    ]


@pytest.mark.parametrize(
    ("rewards", "better", "worse", "contrast"),
    [
        ((1.0, 0.4, 0.0), [0], [1, 2], "success"),  # an outcome decides, whatever the other rewards
        ((0.89, 0.44, 0.44, 0.89), [0, 3], [1, 2], "reward"),  # equal rewards are on one side
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), [4, 5], [0, 1], "reward"),
        ((0.5, 0.5, 0.5, 0.6), [3], [0, 1, 2], "reward"),
        ((1.5, 2.0, 1.5), [1], [0, 2], "reward"),  # all succeed, and one better
    ],
)
def test_graded_siblings_are_split_by_outcome_or_by_thirds(
    rewards: tuple[float, ...], better: list[int], worse: list[int], contrast: str
) -> None:
    split = split_by_outcome(graded(*rewards))
    assert split is not None
    rollouts, found_contrast = split
    assert found_contrast == contrast
    assert [each.sibling for each in rollouts if each.success] == better
    assert [each.sibling for each in rollouts if not each.success] == worse
    assert [each.reward for each in rollouts] == [rewards[each.sibling] for each in rollouts]


def test_rewards_that_differ_too_little_are_no_contrast() -> None:
    assert split_by_outcome(graded(0.4, 0.4)) is None
    assert split_by_outcome(graded(0.4, 0.45), 0.1) is None
    assert split_by_outcome([]) is None


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9]), min_size=1, max_size=9), st.sampled_from([0.0, 0.2]))
def test_a_better_sibling_never_has_a_lower_reward(rewards: list[float], gap: float) -> None:
    split = split_by_outcome(graded(*rewards), gap)
    assert (split is not None) == (max(rewards) - min(rewards) > gap)
    if split is not None:
        better = [each.reward for each in split[0] if each.success]
        worse = [each.reward for each in split[0] if not each.success]
        assert min(better) - max(worse) > gap
