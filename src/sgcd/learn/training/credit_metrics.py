"""A step's credit in numbers (method.md 5, item 10): how much was scored, what stood out, where weight went."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods import CreditResult
from sgcd.records import Credit, CreditRecord, Features, Flags, Floats, Rollout, TokenKind

_TURN_START_TOKENS = 32
"""Tokens of a turn that count as its beginning: style shows there first."""
_HISTOGRAM_BINS = 8
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class RolloutCredit:
    """What a method said of one rollout, and what it had been shown."""

    rollout: Rollout
    result: CreditResult
    features: Features | None
    creditable: Flags
    skip_reason: str = ""
    """Why there are no features: no_reference or no_room."""
    shuffled_result: CreditResult | None = None
    """What it would have said under a neighbour's reference."""
    logprobs: Floats | None = None
    """The trainer's own, of the pass that the rollout was learned in."""

    @property
    def credit(self) -> Credit:
        return self.result.signal.credit

    @property
    def record(self) -> CreditRecord:
        """For the run's folder."""
        if self.features is None:
            return CreditRecord(self.credit)
        return CreditRecord(self.credit, self.features, self.creditable, self.result.segments.saliency)

    @property
    def no_segment_reason(self) -> str:
        """Why there is no segment; empty where there could be one."""
        return self.skip_reason or self.result.segments.reason

    @property
    def eligible(self) -> Flags:
        """Written by the policy, and no masked literal."""
        return self.rollout.response_mask & self.creditable


def credit_metrics(rollout_credits: Sequence[RolloutCredit], can_change_weights: bool) -> dict[str, Any]:
    """Tokens are those of rollouts that had a reference; `reasons` counts all others, and those without a segment."""
    scored = [rollout_credit for rollout_credit in rollout_credits if rollout_credit.features]
    divergence = _feature_values(scored, "divergence")
    weight = _concatenate([rollout_credit.credit.weight[rollout_credit.eligible] for rollout_credit in scored])
    return {
        "weighs": can_change_weights,
        "rollouts": len(rollout_credits),
        "scored": len(scored),
        "reasons": dict(
            Counter(
                rollout_credit.no_segment_reason
                for rollout_credit in rollout_credits
                if rollout_credit.no_segment_reason
            ).most_common()
        ),
        "tokens": sum(rollout_credit.rollout.num_policy_tokens for rollout_credit in scored),
        "creditable": len(weight),
        "credited": int((weight > 1).sum()),
        "segments": sum(len(rollout_credit.result.segments.spans) for rollout_credit in scored),
        "nonfinite": sum(rollout_credit.result.segments.num_nonfinite for rollout_credit in scored),
        "divergence": {"mean": _mean(divergence), **_quantiles(divergence)},
        "entropy": _mean(_feature_values(scored, "entropy")),
        "gap": _mean(_feature_values(scored, "teacher_logprob_gap")),
        "weight": {
            "mean": _mean(
                _concatenate(
                    [
                        rollout_credit.credit.weight[rollout_credit.rollout.response_mask]
                        for rollout_credit in rollout_credits
                    ]
                )
            ),
            "clipped": _ratio(sum(rollout_credit.result.num_clipped for rollout_credit in scored), len(weight)),
            "histogram": _histogram(weight, [rollout_credit.credit for rollout_credit in scored]),
        },
        "where": _credit_by_place(scored),
    }


def shuffled_overlap_metrics(rollout_credits: Sequence[RolloutCredit]) -> dict[str, Any]:
    """How far credit is the same under a neighbour's reference: |both| / |either|, over credited tokens."""
    pairs = [
        (rollout_credit.credit.weight > 1, rollout_credit.shuffled_result.signal.credit.weight > 1)
        for rollout_credit in rollout_credits
        if rollout_credit.shuffled_result
    ]
    credited, shuffled_credited = (_concatenate([pair[side] for pair in pairs]).astype(bool) for side in (0, 1))
    return {
        "rollouts": len(pairs),
        "own": int(credited.sum()),
        "other": int(shuffled_credited.sum()),
        "both": int((credited & shuffled_credited).sum()),
        "overlap": _ratio(int((credited & shuffled_credited).sum()), int((credited | shuffled_credited).sum())),
    }


def _credit_by_place(rollout_credits: Sequence[RolloutCredit]) -> dict[str, Any]:
    """Shares of the weight above one, and beside each the share of the tokens that were written there."""
    extra_weight = _concatenate(
        [
            np.maximum(rollout_credit.credit.weight - 1, 0)[rollout_credit.rollout.response_mask]
            for rollout_credit in rollout_credits
        ]
    )
    token_kinds = _concatenate(
        [rollout_credit.rollout.token_kinds[rollout_credit.rollout.response_mask] for rollout_credit in rollout_credits]
    )
    turn_start = _concatenate(
        [
            _turn_start_mask(rollout_credit.rollout)[rollout_credit.rollout.response_mask]
            for rollout_credit in rollout_credits
        ]
    )
    places = {kind.name.lower(): token_kinds == kind for kind in TokenKind if kind != TokenKind.GLUE} | {
        "first": turn_start > 0
    }
    return {
        name: {
            "credit": _ratio(extra_weight[selected].sum(), extra_weight.sum()),
            "tokens": _ratio(selected.sum(), len(selected)),
        }
        for name, selected in places.items()
    }


def _turn_start_mask(rollout: Rollout) -> Flags:
    """The first tokens of each turn."""
    flags = np.zeros(len(rollout.response), np.bool_)
    for turn in rollout.turns:
        flags[turn.start : min(turn.stop, turn.start + _TURN_START_TOKENS)] = True
    return flags


def _histogram(weight: NDArray[Any], rollout_credits: Sequence[Credit]) -> dict[str, Any] | None:
    """Creditable tokens by weight, between the floor and the cap; those at exactly one are counted by themselves."""
    if not rollout_credits or rollout_credits[0].floor == rollout_credits[0].cap:
        return None
    bounds = (rollout_credits[0].floor, rollout_credits[0].cap)
    counts, edges = np.histogram(np.clip(weight[weight != 1].astype(np.float64), *bounds), _HISTOGRAM_BINS, bounds)
    return {"one": int((weight == 1).sum()), "edges": edges.round(6).tolist(), "counts": counts.tolist()}


def _feature_values(rollout_credits: Sequence[RolloutCredit], name: str) -> NDArray[Any]:
    """A feature at every creditable token where it is finite."""
    values = _concatenate(
        [getattr(rollout_credit.features, name)[rollout_credit.eligible] for rollout_credit in rollout_credits]
    )
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
