"""Chooses the traces that a writer reads: as many successes as failures, within a token budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sgcd.contrast.trace import Trace, drop_middle_turns, render_trace, shorten_observations
from sgcd.records import Rollout

_OBSERVATION_LIMITS = (4000, 1000, 300)
"""Character limits of an observation, tried in order when no pair fits."""
_MIN_TURNS = 2
"""The fewest turns of a shortened trace: the first and the last."""

SizedTrace = tuple[int, Trace]


Contrast = Literal["success", "reward"]
"""What parts the siblings that a reference compares."""


def split_by_outcome(rollouts: Sequence[Rollout], min_reward_gap: float = 0.0) -> tuple[list[Rollout], Contrast] | None:
    """The siblings that a reference compares, those of the better side marked as successes.

    Success decides where both outcomes occur, whatever the rewards. Else the third with the best rewards is compared
    with the third with the worst, equal rewards on the same side, and the siblings between them are left out. Where
    these thirds do not differ, the best rewards are compared with the worst. None where no rewards differ by more than
    `min_reward_gap`.
    """
    if len({rollout.success for rollout in rollouts}) == 2:
        return list(rollouts), "success"
    rewards = sorted(rollout.reward for rollout in rollouts)
    third = max(1, len(rewards) // 3)
    for count in (third, 1):
        if rewards and rewards[-count] - rewards[count - 1] > min_reward_gap:
            worse, better = rewards[count - 1], rewards[-count]
            sides = [rollout for rollout in rollouts if rollout.reward <= worse or rollout.reward >= better]
            return [_mark_success(rollout, rollout.reward >= better) for rollout in sides], "reward"
    return None


def _mark_success(rollout: Rollout, success: bool) -> Rollout:
    assert rollout.verdict is not None, "a broken rollout is in no group"
    return replace(rollout, verdict=replace(rollout.verdict, success=success))


@dataclass(frozen=True, slots=True)
class ChosenTraces:
    """The traces that the writer reads, in sibling order, and how they were chosen."""

    traces: tuple[Trace, ...]
    selection: Literal["all", "even", "fewer", "shortened", "cut"]
    """all: all traces; even: as many successes as failures; fewer: fewer of both; shortened: one pair with shortened
    observations; cut: one pair without middle turns."""


def choose_traces(traces: Sequence[Trace], budget: int, count_tokens: Callable[[str], int]) -> ChosenTraces | None:
    """The published rule and its completion for mixed siblings. None when no shortened pair fits.

    Shorter successes and longer failures come first; among equals, the lower sibling.
    """
    successes, failures = _rank_by_length(traces, count_tokens)
    if not successes or not failures:
        return None
    if _total_tokens(all_traces := [*successes, *failures]) <= budget:
        return _in_sibling_order(all_traces, "all")
    num_balanced = min(len(successes), len(failures))
    if _total_tokens(balanced := [*successes[:num_balanced], *failures[:num_balanced]]) <= budget:
        return _in_sibling_order(balanced, "even")
    for num_pairs in range(max(1, num_balanced - 1), 0, -1):
        if picked := _pick_fitting(successes, failures, num_pairs, budget=budget):
            return _in_sibling_order(picked, "fewer")
    for max_chars in _OBSERVATION_LIMITS:
        successes, failures = _rank_by_length(
            [shorten_observations(trace, max_chars) for trace in traces], count_tokens
        )
        if picked := _pick_fitting(successes, failures, 1, budget=budget):
            return _in_sibling_order(picked, "shortened")
    pair = _drop_turns_to_fit((successes[0][1], failures[-1][1]), budget, count_tokens)
    return ChosenTraces(tuple(sorted(pair, key=lambda trace: trace.sibling)), "cut") if pair else None


def _rank_by_length(
    traces: Sequence[Trace], count_tokens: Callable[[str], int]
) -> tuple[list[SizedTrace], list[SizedTrace]]:
    """Successes, shortest first, and failures, longest first."""
    sized_traces = [(count_tokens(render_trace(trace)), trace) for trace in traces]
    successes = sorted(
        (sized_trace for sized_trace in sized_traces if sized_trace[1].success),
        key=lambda sized_trace: (sized_trace[0], sized_trace[1].sibling),
    )
    failures = sorted(
        (sized_trace for sized_trace in sized_traces if not sized_trace[1].success),
        key=lambda sized_trace: (-sized_trace[0], sized_trace[1].sibling),
    )
    return successes, failures


def _pick_fitting(
    successes: Sequence[SizedTrace], failures: Sequence[SizedTrace], num_pairs: int, *, budget: int
) -> list[SizedTrace] | None:
    """The `num_pairs` shortest successes and as many failures, the longest that fit."""
    picked = [*successes[:num_pairs]]
    for index, failure in enumerate(failures):
        num_missing = 2 * num_pairs - len(picked) - 1  # after this failure; the shortest failures are last
        if num_missing >= 0 and index + num_missing < len(failures):
            shortest_failures = failures[len(failures) - num_missing :]
            if _total_tokens([*picked, failure, *shortest_failures]) <= budget:
                picked.append(failure)
    return picked if len(picked) == 2 * num_pairs else None


def _drop_turns_to_fit(
    pair: tuple[Trace, Trace], budget: int, count_tokens: Callable[[str], int]
) -> tuple[Trace, ...] | None:
    """The pair with the fewest turns dropped that fits. Each step drops a middle turn of the longer trace."""
    num_turns = [len(trace.turns) for trace in pair]
    while True:
        shortened_pair = tuple(
            drop_middle_turns(trace, num_kept) for trace, num_kept in zip(pair, num_turns, strict=True)
        )
        lengths = [count_tokens(render_trace(trace)) for trace in shortened_pair]
        if sum(lengths) <= budget:
            return shortened_pair
        shortenable = [index for index in (0, 1) if num_turns[index] > _MIN_TURNS]
        if not shortenable:
            return None
        num_turns[max(shortenable, key=lambda index: lengths[index])] -= 1


def _total_tokens(sized_traces: Sequence[SizedTrace]) -> int:
    return sum(length for length, _ in sized_traces)


def _in_sibling_order(
    sized_traces: Sequence[SizedTrace], selection: Literal["all", "even", "fewer", "shortened"]
) -> ChosenTraces:
    return ChosenTraces(tuple(sorted((trace for _, trace in sized_traces), key=lambda trace: trace.sibling)), selection)
