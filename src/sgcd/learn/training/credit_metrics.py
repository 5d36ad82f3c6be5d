"""Metrics of a step's credit: tokens scored and credited, weights, and their places."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.contrast.choose import split_by_outcome
from sgcd.credit.divergence import observed_logprob_of
from sgcd.credit_records import OWN_REFERENCE, Credit, CreditRecord, Features, Signal, Teacher
from sgcd.learn.training.teacher_scorer import ScoredGroup
from sgcd.measure.statistics import rank_correlation
from sgcd.records import Flags, Floats, Rollout, TokenKind
from sgcd.settings import UNDECIDED_ENTROPY
from sgcd.storage.credit_metrics import (
    CreditMetrics,
    CreditOverlap,
    CreditShare,
    DivergenceMetrics,
    NoiseMetrics,
    ReadingCounts,
    WeightHistogram,
    WeightMetrics,
)

_TURN_START_TOKENS = 32
"""Tokens of a turn that count as its beginning, where a difference of style shows first."""
_HISTOGRAM_BINS = 8
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class RolloutCredit:
    """The credit of one rollout, and the features that the method made it from."""

    rollout: Rollout
    signal: Signal
    features: Features | None
    """Under the first of the method's teachers."""
    outside_literals: Flags
    skip_reason: str = ""
    """Why the method saw no features: no_reference, exceeds_window, or not_read."""
    next_signal: Signal | None = None
    """The signal under the next group's reference."""
    swapped_signal: Signal | None = None
    """The signal under the group's reference with success and failure exchanged."""
    logprobs: Floats | None = None
    """The trainer's own, of the pass that the rollout was learned in."""

    @property
    def credit(self) -> Credit:
        return self.signal.credit

    @property
    def record(self) -> CreditRecord:
        """The record for the run's folder."""
        if self.features is None:
            return CreditRecord(self.credit)
        return CreditRecord(self.credit, self.features, self.outside_literals, self.signal.saliency)

    @property
    def no_segment_reason(self) -> str:
        """Why the rollout has no segment; empty where it could have one."""
        return self.skip_reason or self.signal.segments.reason

    @property
    def creditable_tokens(self) -> Flags:
        """Tokens that the policy wrote and that are no masked literal."""
        return self.rollout.response_mask & self.outside_literals


def build_credit_metrics(
    rollout_credits: Sequence[RolloutCredit],
    can_change_weights: bool,
    method_state: Mapping[str, Any],
    *,
    has_teacher: bool = True,
    reading: Sequence[ReadingCounts] | None = None,
) -> CreditMetrics:
    """Count tokens of rollouts with features; `reasons` counts the others, and those without a segment.

    A method without a teacher has no features, so all rollouts are counted.

    `reading`: pairs of each group, where the rollouts were also scored under other references.
    """
    is_sample = reading is not None
    scored = [entry for entry in rollout_credits if entry.features]
    counted = scored if has_teacher else rollout_credits
    divergence = _feature_values(scored, "divergence")
    weight = _concatenate([entry.credit.weight[entry.creditable_tokens] for entry in counted])
    reasons = Counter(entry.no_segment_reason for entry in rollout_credits if entry.no_segment_reason)
    return CreditMetrics(
        weighs=can_change_weights,
        rollouts=len(rollout_credits),
        scored=len(scored),
        reasons=dict(reasons.most_common()),
        tokens=sum(entry.rollout.num_policy_tokens for entry in counted),
        creditable=len(weight),
        credited=int((weight > 1).sum()),
        segments=sum(len(entry.signal.segments.spans) for entry in scored),
        nonfinite=sum(entry.signal.segments.num_nonfinite for entry in scored),
        divergence=DivergenceMetrics(mean=_mean(divergence), **_quantiles(divergence)),
        entropy=_mean(_feature_values(scored, "teacher_entropy")),
        gap=_mean(_feature_values(scored, "teacher_logprob_gap")),
        weight=WeightMetrics(
            mean=_mean(_concatenate([entry.credit.weight[entry.rollout.response_mask] for entry in rollout_credits])),
            clipped=_ratio(sum(entry.signal.num_clipped for entry in scored), len(weight)),
            histogram=_histogram(weight, [entry.credit for entry in counted]),
        ),
        where=_credit_by_place(counted),
        method=dict(method_state),
        next_reference=_credit_overlap(rollout_credits, "next_signal") if is_sample else None,
        swapped=_credit_overlap(rollout_credits, "swapped_signal") if is_sample else None,
        reading=[*reading] if reading is not None else None,
        noise=_measure_noise(scored),
    )


def _measure_noise(rollout_credits: Sequence[RolloutCredit]) -> NoiseMetrics | None:
    """What tells noise from credit, from arrays that are there anyway."""
    if not rollout_credits or any(_feature(entry, "student_entropy") is None for entry in rollout_credits):
        return None
    creditable = [entry.creditable_tokens & np.isfinite(_feature(entry, "divergence")) for entry in rollout_credits]

    def tokens(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return _concatenate([array[mask] for array, mask in zip(arrays, creditable, strict=True)])

    divergence = tokens(_feature(entry, "divergence") for entry in rollout_credits).astype(np.float64)
    entropy = tokens(_feature(entry, "student_entropy") for entry in rollout_credits)
    extra_weight = tokens(np.maximum(entry.credit.weight - 1, 0) for entry in rollout_credits).astype(np.float64)
    is_end = tokens(_end_mask(entry.rollout) for entry in rollout_credits).astype(bool)
    num_credited = [int((entry.credit.weight > 1).sum()) for entry in rollout_credits]
    undecided = entropy >= UNDECIDED_ENTROPY
    clipped = np.minimum(divergence, 1)
    return NoiseMetrics(
        divergence=float(clipped.sum()),
        sure_divergence=float(clipped[~undecided].sum()),
        extra_weight=float(extra_weight.sum()),
        end_extra_weight=float(extra_weight[is_end].sum()),
        end_tokens=int(is_end.sum()),
        credited_rollouts=sum(count > 0 for count in num_credited),
        single_token_rollouts=num_credited.count(1),
        entropy_correlation=rank_correlation(divergence[undecided], entropy[undecided]),
    )


def _feature(entry: RolloutCredit, name: str) -> NDArray[Any]:
    return getattr(entry.features, name)


def _end_mask(rollout: Rollout) -> Flags:
    """The last token of each turn and of each call."""
    is_call = rollout.token_kinds == TokenKind.CALL
    flags = is_call & ~np.append(is_call[1:], False)
    flags[[turn.stop - 1 for turn in rollout.turns if turn.stop > turn.start]] = True
    return flags


def count_reading_pairs(scored_group: ScoredGroup, rollout_credits: Sequence[RolloutCredit]) -> ReadingCounts | None:
    """How often references prefer the success of a pair; None for a group without a reference or without a pair.

    Successes and failures are paired in sibling order, each in one pair at most.
    """
    split = split_by_outcome(scored_group.group.rollouts)
    own = _sum_logprobs(scored_group, OWN_REFERENCE)
    if split is None or all(value is None for value in own):
        return None
    sides = ([rollout.sibling for rollout in split[0] if rollout.success is side] for side in (True, False))
    places = {rollout.sibling: place for place, rollout in enumerate(scored_group.group.rollouts)}
    pairs = [(places[success], places[failure]) for success, failure in zip(*sides, strict=False)]
    student = [float(one.logprobs.sum()) if one.logprobs is not None else None for one in rollout_credits]

    def count(values: Sequence[float | None], baseline: Sequence[float | None]) -> tuple[int, int]:
        """The pairs that both have scored, and those of them whose success gains more than its failure."""
        gains = [
            None if value is None or base is None else value - base
            for value, base in zip(values, baseline, strict=True)
        ]
        known = [(gains[success], gains[failure]) for success, failure in pairs]
        compared = [(success, failure) for success, failure in known if success is not None and failure is not None]
        return len(compared), sum(success > failure for success, failure in compared)

    next_reference, swapped = (
        _sum_logprobs(scored_group, Teacher(context)) for context in ("next_reference", "swapped")
    )
    num_pairs, num_own = count(own, student)
    num_next_pairs, num_next = count(next_reference, student)
    num_swapped_pairs, num_above = count(own, swapped)
    return ReadingCounts(
        pairs=num_pairs,
        own_prefers_success=num_own,
        next_reference_pairs=num_next_pairs,
        next_reference_prefers_success=num_next,
        swapped_pairs=num_swapped_pairs,
        own_above_swapped=num_above,
    )


def _sum_logprobs(scored_group: ScoredGroup, teacher: Teacher) -> list[float | None]:
    """log q of each rollout, the sum over its tokens; None where the teacher scored nothing."""
    scored = scored_group.teacher_outcomes.get(teacher) or [None] * len(scored_group.group.rollouts)
    return [
        float(observed_logprob_of(one.outcome_logprobs, one.topk_ids.long(), one.observed_ids).sum()) if one else None
        for one in scored
    ]


def _credit_overlap(rollout_credits: Sequence[RolloutCredit], other: str) -> CreditOverlap:
    """Compare the credited tokens with those under another reference: |both| / |either|."""
    signals: list[tuple[RolloutCredit, Signal | None]] = [(one, getattr(one, other)) for one in rollout_credits]
    pairs = [(one.credit.weight > 1, signal.credit.weight > 1) for one, signal in signals if signal]
    credited, other_credited = (_concatenate([pair[side] for pair in pairs]).astype(bool) for side in (0, 1))
    num_both, num_either = int((credited & other_credited).sum()), int((credited | other_credited).sum())
    return CreditOverlap(
        rollouts=len(pairs),
        own_tokens=int(credited.sum()),
        other_tokens=int(other_credited.sum()),
        common_tokens=num_both,
        overlap=_ratio(num_both, num_either),
    )


def _credit_by_place(rollout_credits: Sequence[RolloutCredit]) -> dict[str, CreditShare]:
    """For each kind of token: its share of the weight above one, and its share of the tokens."""

    def policy_tokens(get_values: Callable[[RolloutCredit], NDArray[Any]]) -> NDArray[Any]:
        return _concatenate([get_values(entry)[entry.rollout.response_mask] for entry in rollout_credits])

    extra_weight = policy_tokens(lambda entry: np.maximum(entry.credit.weight - 1, 0))
    token_kinds = policy_tokens(lambda entry: entry.rollout.token_kinds)
    at_turn_start = policy_tokens(lambda entry: _turn_start_mask(entry.rollout)) > 0
    places = {kind.name.lower(): token_kinds == kind for kind in TokenKind if kind != TokenKind.GLUE}
    return {
        name: CreditShare(
            credit=_ratio(extra_weight[selected].sum(), extra_weight.sum()),
            tokens=_ratio(selected.sum(), len(selected)),
        )
        for name, selected in {**places, "first": at_turn_start}.items()
    }


def _turn_start_mask(rollout: Rollout) -> Flags:
    """The first tokens of each turn."""
    flags = np.zeros(len(rollout.response), np.bool_)
    for turn in rollout.turns:
        flags[turn.start : min(turn.stop, turn.start + _TURN_START_TOKENS)] = True
    return flags


def _histogram(weight: NDArray[Any], rollout_credits: Sequence[Credit]) -> WeightHistogram | None:
    """Creditable tokens by weight, between the floor and the cap; tokens at exactly one are counted apart."""
    if not rollout_credits or rollout_credits[0].floor == rollout_credits[0].cap:
        return None
    floor, cap = rollout_credits[0].floor, rollout_credits[0].cap
    values = np.clip(weight[weight != 1].astype(np.float64), floor, cap)
    counts, edges = np.histogram(values, _HISTOGRAM_BINS, (floor, cap))
    return WeightHistogram(num_unit=int((weight == 1).sum()), edges=edges.round(6).tolist(), counts=counts.tolist())


def _feature_values(rollout_credits: Sequence[RolloutCredit], name: str) -> NDArray[Any]:
    """A feature at every creditable token where it is finite."""
    values = _concatenate([getattr(entry.features, name)[entry.creditable_tokens] for entry in rollout_credits])
    return values[np.isfinite(values)]


def _concatenate(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


def _quantiles(values: NDArray[Any]) -> dict[str, float | None]:
    names = ("median", "p90", "p99", "max")
    if not values.size:
        return dict.fromkeys(names)
    quantiles = np.quantile(values.astype(np.float64), _QUANTILES, method="lower")
    return dict(zip(names, map(float, quantiles), strict=True))


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.astype(np.float64).mean()) if values.size else None


def _ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator) / float(denominator) if denominator else None
