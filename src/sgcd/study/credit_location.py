"""Whether credit is where the decisions are: scores against decisive tokens, signs against the truth, shares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods.sgcd import CreditResult
from sgcd.credit.segments import measure_scale, normalized_divergence, spike_threshold
from sgcd.credit.settings import SgcdSettings
from sgcd.measure.statistics import Float64Array
from sgcd.records import TokenKind
from sgcd.study.decision_values import MAX_TOP_PROB
from sgcd.study.ranking import Ranking, bootstrap_estimates
from sgcd.study.weightings import (
    OWN_REFERENCE,
    SHUFFLED_REFERENCE,
    RolloutWithTruth,
    assign_credits,
    with_published_segments,
)

_TURN_START_TOKENS = 32
"""Tokens of a turn that count as its beginning: where a hint that only shifts the style would put the credit."""
_DECISIVE_BY_CHANCE = 0.0027
"""Two-sided probability beyond three standard errors."""
_Array = NDArray[Any]
_POLICY_KINDS = (TokenKind.THINKING, TokenKind.CALL, TokenKind.ANSWER)


class PooledTokens:
    """The tokens of many rollouts in one row: those that the policy wrote, with or without masked literals."""

    def __init__(self, samples: Sequence[RolloutWithTruth], literals: bool = False) -> None:
        self.samples = samples
        self._masks = [sample.rollout.response_mask if literals else sample.truth.counted_mask for sample in samples]
        self.groups = self.collect(lambda sample: np.full(len(sample.rollout.response), sample.group_index))
        self.decisive = self.collect(lambda sample: sample.truth.decisive_mask)
        self.kinds = self.collect(lambda sample: sample.rollout.token_kinds)

    def collect(self, get_values: Callable[[RolloutWithTruth], _Array]) -> _Array:
        return self.concatenate([get_values(sample) for sample in self.samples])

    def concatenate(self, arrays: Sequence[_Array]) -> _Array:
        return np.concatenate([array[mask] for array, mask in zip(arrays, self._masks, strict=True)])


def truth_counts(samples: Sequence[RolloutWithTruth]) -> dict[str, Any]:
    """How much was measured, and how much of it decides."""
    tokens = PooledTokens(samples)
    measured = tokens.collect(lambda sample: sample.truth.measured_mask)
    advantage = np.abs(tokens.collect(lambda sample: sample.truth.advantage)[tokens.decisive])
    num_policy_tokens = sum(sample.rollout.num_policy_tokens for sample in samples)
    return {
        "rollouts": len(samples),
        "groups": len(np.unique(tokens.groups)),
        "tokens": num_policy_tokens,
        "literals": num_policy_tokens - len(tokens.groups),
        "measured": _count_by_kind(measured, tokens.kinds),
        "decisive": _count_by_kind(tokens.decisive, tokens.kinds),
        "decisive by chance": round(_DECISIVE_BY_CHANCE * int(measured.sum()), 1),
        "size of a decisive advantage": float(advantage.mean()) if len(advantage) else None,
    }


def measure_credit_location(samples: Sequence[RolloutWithTruth], settings: SgcdSettings) -> dict[str, Any]:
    """AUROC and average precision against decisive tokens, of the own and of the shuffled reference's teacher.

    Negatives are all other tokens; then only those that were measured, which is the harder question; then the question
    is put of places: are tokens found where this choice or a sibling's, in the very same context, was decisive? Beside
    the method's own numbers stand two that explain them: the gap knows which token was sampled, the divergence only
    where; the student's doubt, one minus its largest probability, needs no reference at all.
    """
    tokens = PooledTokens(samples)
    credit_results, published_credits = (
        [assign_credits(variant, arm, samples) for arm in (OWN_REFERENCE, SHUFFLED_REFERENCE)]
        for variant in (settings, with_published_segments(settings))
    )
    logprob_gaps = [
        tokens.concatenate([item.token_scores.features[arm].teacher_logprob_gap for item in samples])
        for arm in (OWN_REFERENCE, SHUFFLED_REFERENCE)
    ]
    scores = {
        "divergence": [
            tokens.concatenate([item.token_scores.features[arm].divergence for item in samples])
            for arm in (OWN_REFERENCE, SHUFFLED_REFERENCE)
        ],
        "size of the gap": [np.abs(gap) for gap in logprob_gaps],
        "weight": [tokens.concatenate([item.signal.credit.weight for item in arm]) for arm in credit_results],
        "weight, published": [
            tokens.concatenate([item.signal.credit.weight for item in arm]) for arm in published_credits
        ],
        "student's doubt": [1 - tokens.collect(lambda item: item.token_scores.top_probs)],
    }
    everywhere, measured = np.ones(len(tokens.groups), bool), tokens.collect(lambda item: item.truth.measured_mask)
    questions = {
        "all": (tokens.decisive, everywhere),
        "measured": (tokens.decisive, measured),
        "places": (tokens.concatenate(_decisive_choice_masks(samples)), everywhere),
    }
    return {
        name: {
            score: _ranking_estimates(arm_scores, positives, among, tokens.groups)
            for score, arm_scores in scores.items()
        }
        for name, (positives, among) in questions.items()
    }


def measure_sign_agreement(samples: Sequence[RolloutWithTruth]) -> dict[str, Any] | None:
    """Share of decisive tokens at which a number has the sign of the true advantage; no sign counts half."""
    tokens = PooledTokens(samples)
    if not tokens.decisive.any():
        return None
    signs = {
        "gap": tokens.concatenate(
            [sample.token_scores.features[OWN_REFERENCE].teacher_logprob_gap for sample in samples]
        ),
        "shuffled gap": tokens.concatenate(
            [sample.token_scores.features[SHUFFLED_REFERENCE].teacher_logprob_gap for sample in samples]
        ),
        "rollout's advantage": tokens.collect(lambda sample: np.full(len(sample.rollout.response), sample.advantage)),
    }
    truth = np.sign(tokens.collect(lambda sample: sample.truth.advantage)[tokens.decisive])
    agree = np.stack([(1 + np.sign(sign[tokens.decisive]) * truth) / 2 for sign in signs.values()])

    def shares(weight: Float64Array) -> list[float]:
        return (agree @ weight / weight.sum()).tolist() if weight.any() else [np.nan] * len(agree)

    estimates = bootstrap_estimates(shares, tokens.groups[tokens.decisive])
    return dict(zip(signs, (estimate.to_json() for estimate in estimates), strict=True))


def measure_credit_shares(
    samples: Sequence[RolloutWithTruth], credit_results: Sequence[CreditResult]
) -> dict[str, Any]:
    """Where the weight above one lies; beside each share, the share of the tokens that lie there anyway."""
    tokens = PooledTokens(samples, literals=True)
    credit = np.maximum(tokens.concatenate([item.signal.credit.weight for item in credit_results]).astype(float) - 1, 0)
    places = {
        "decisive": tokens.decisive,
        "literals": ~tokens.collect(lambda item: item.truth.counted_mask),
        "boilerplate": tokens.collect(lambda item: item.token_scores.top_probs) >= MAX_TOP_PROB,
        f"first {_TURN_START_TOKENS} of a turn": tokens.collect(_turn_start_mask),
        **{kind.name.lower(): tokens.kinds == kind for kind in _POLICY_KINDS},
    }
    total = float(credit.sum())
    return {
        "credited tokens": float((credit > 0).mean()),
        "mean weight": 1 + float(credit.mean()),
        "shares": {
            name: {
                "credit": float(credit[place_mask].sum()) / total if total else None,
                "tokens": float(place_mask.mean()),
            }
            for name, place_mask in places.items()
        },
    }


def spike_condition_shares(samples: Sequence[RolloutWithTruth], settings: SgcdSettings) -> dict[str, Any] | None:
    """Of the decisive tokens, the share at which each condition of a spike holds, all of them hold, credit arrives."""
    condition_flags: list[_Array] = []
    for sample, credit_result in zip(samples, assign_credits(settings, OWN_REFERENCE, samples), strict=True):
        decisive, valid, features = (
            sample.truth.decisive_mask,
            sample.truth.counted_mask,
            sample.token_scores.features[OWN_REFERENCE],
        )
        if not decisive.any():
            continue
        d, h = features.divergence.astype(float), features.entropy.astype(float)
        scale = measure_scale(d[valid], h[valid], settings.segments)
        enough_nats, is_spike = (
            d >= settings.segments.min_divergence,
            normalized_divergence(d, scale, settings.segments) >= spike_threshold(settings.segments),
        )
        confident = h <= scale.max_entropy
        enough_tokens = np.full(len(d), valid.sum() >= settings.segments.min_tokens)
        credited = credit_result.segments.saliency > 0
        condition_flags.append(
            np.stack(
                [
                    enough_tokens,
                    enough_nats,
                    is_spike,
                    confident,
                    enough_tokens & enough_nats & is_spike & confident,
                    credited,
                ]
            )[:, decisive]
        )
    names = ("enough tokens", "enough nats", "high", "teacher confident", "all of these", "credited")
    return (
        dict(zip(names, np.concatenate(condition_flags, axis=1).mean(axis=1).tolist(), strict=True))
        if condition_flags
        else None
    )


def _decisive_choice_masks(samples: Sequence[RolloutWithTruth]) -> list[_Array]:
    """Tokens whose choice, or a sibling's after the very same words, was decisive."""
    decisive_contexts: set[tuple[int, bytes]] = set()
    contexts = [
        [
            (sample.group_index, sample.rollout.response[:place].tobytes())
            for place in range(len(sample.rollout.response))
        ]
        for sample in samples
    ]
    for sample, context in zip(samples, contexts, strict=True):
        decisive_contexts |= {context[place] for place in np.flatnonzero(sample.truth.decisive_mask)}
    return [np.array([place in decisive_contexts for place in context], bool) for context in contexts]


def _turn_start_mask(sample: RolloutWithTruth) -> _Array:
    flags = np.zeros(len(sample.rollout.response), bool)
    for turn in sample.rollout.turns:
        flags[turn.start : min(turn.stop, turn.start + _TURN_START_TOKENS)] = True
    return flags


def _ranking_estimates(
    arm_scores: Sequence[_Array], decisive: _Array, among: _Array, groups: _Array
) -> Mapping[str, Any] | None:
    positives = decisive[among]
    if not positives.any() or positives.all():
        return None
    rankings = [Ranking.from_scores(score[among], positives) for score in arm_scores]
    names = ("own", "shuffled", "own - shuffled") if len(arm_scores) == 2 else ("own",)

    def figures(weight: Float64Array) -> list[float]:
        by_metric = zip(*(ranking.auroc_and_precision(weight) for ranking in rankings), strict=True)
        return [figure for row in by_metric for figure in (*row, *(row[0] - shuffled for shuffled in row[1:]))]

    estimates = [estimate.to_json() for estimate in bootstrap_estimates(figures, groups[among])]
    return {
        "share decisive": float(positives.mean()),
        "auroc": dict(zip(names, estimates[: len(names)], strict=True)),
        "average precision": dict(zip(names, estimates[len(names) :], strict=True)),
    }


def _count_by_kind(flags: _Array, kinds: _Array) -> dict[str, int]:
    counts = {kind.name.lower(): int((flags & (kinds == kind)).sum()) for kind in _POLICY_KINDS}
    return {"all": int(flags.sum()), **counts}
