"""Compares credit with the true decisions: rankings of decisive tokens (AUROC), signs, and shares of the credit."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods.parting import find_shares
from sgcd.credit.segments import measure_scale, normalized_divergence, spike_threshold
from sgcd.credit.settings import PartingMethodSettings, SegmentSettings, SgcdSettings
from sgcd.credit_records import Features, Signal
from sgcd.measure.statistics import Float64Array, jackknife_estimate
from sgcd.records import TokenKind
from sgcd.settings import UNDECIDED_ENTROPY
from sgcd.study.decision_values import MAX_TOP_PROB
from sgcd.study.ranking import leave_one_out, ranking_estimates
from sgcd.study.weightings import (
    OWN_AND_NEXT,
    OWN_AND_SWAPPED,
    UNDER_NEUTRAL,
    UNDER_NEXT,
    UNDER_OWN,
    UNDER_SWAPPED,
    RolloutWithTruth,
    assign_credits,
    with_published_segments,
)

_TURN_START_TOKENS = 32
"""Tokens of a turn that count as its beginning. A reference that only changes the style would put the credit there."""
_DECISIVE_BY_CHANCE = 0.0027
"""Two-sided probability beyond three standard errors."""
_Array = NDArray[Any]
_OTHER_TEACHERS = {
    "swapped reference": UNDER_SWAPPED,
    "neutral text": UNDER_NEUTRAL,
    "own against swapped": OWN_AND_SWAPPED,
    "own against foreign": OWN_AND_NEXT,
}
_TEACHER_SCORES: dict[str, Callable[[Features], _Array]] = {
    "divergence": lambda features: features.divergence,
    "size of the gap": lambda features: np.abs(features.teacher_logprob_gap),
}
_POLICY_KINDS = (TokenKind.THINKING, TokenKind.CALL, TokenKind.ANSWER)


class PooledTokens:
    """The policy tokens of many rollouts in one array, with or without masked literals."""

    def __init__(self, samples: Sequence[RolloutWithTruth], literals: bool = False) -> None:
        self.samples = samples
        self._masks = [
            sample.scored.rollout.response_mask if literals else sample.truth.counted_mask for sample in samples
        ]
        self.groups = self.collect(
            lambda sample: np.full(len(sample.scored.rollout.response), sample.scored.group_index)
        )
        self.decisive = self.collect(lambda sample: sample.truth.decisive_mask)
        self.kinds = self.collect(lambda sample: sample.scored.rollout.token_kinds)

    def collect(self, get_values: Callable[[RolloutWithTruth], _Array]) -> _Array:
        return self.concatenate([get_values(sample) for sample in self.samples])

    def collect_constant(self, get_value: Callable[[RolloutWithTruth], float]) -> _Array:
        """One value per rollout, repeated for each of its tokens."""
        return self.collect(lambda sample: np.full(len(sample.scored.rollout.response), get_value(sample)))

    def collect_features(self, reference: int, get_values: Callable[[Features], _Array]) -> _Array:
        return self.collect(lambda sample: get_values(sample.scored.features_under(reference)))

    def concatenate(self, arrays: Sequence[_Array]) -> _Array:
        return np.concatenate([array[mask] for array, mask in zip(arrays, self._masks, strict=True)])


def truth_counts(samples: Sequence[RolloutWithTruth]) -> dict[str, Any]:
    """Counts of measured and of decisive tokens, by kind."""
    tokens = PooledTokens(samples)
    measured = tokens.collect(lambda sample: sample.truth.measured_mask)
    advantage = np.abs(tokens.collect(lambda sample: sample.truth.advantage)[tokens.decisive])
    num_policy_tokens = sum(sample.scored.rollout.num_policy_tokens for sample in samples)
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
    """AUROC and average precision of several scores, under the own and under the shuffled reference.

    Four questions: "all" ranks decisive tokens against all other tokens; "undecided" against those at which the
    student's entropy is at least .1 nat, and "measured" against other measured tokens, which is harder; "places" also
    counts a token as positive if a sibling's choice in the same context was decisive. The gap depends on the sampled
    token, the divergence on its context alone; the student's doubt, one minus its largest probability, its entropy and
    its surprisal need no reference.
    """
    tokens = PooledTokens(samples)
    arms = (UNDER_OWN, UNDER_NEXT)

    def weights(variant: SgcdSettings) -> list[_Array]:
        credits_by_arm = [assign_credits(variant, arm, samples) for arm in arms]
        return [tokens.concatenate([result.credit.weight for result in results]) for results in credits_by_arm]

    entropy = tokens.collect_features(UNDER_OWN, _student_entropy)
    scores = {
        "divergence": [tokens.collect_features(arm, lambda features: features.divergence) for arm in arms],
        "size of the gap": [
            np.abs(tokens.collect_features(arm, lambda features: features.teacher_logprob_gap)) for arm in arms
        ],
        "weight": weights(settings),
        "weight, published": weights(with_published_segments(settings)),
        "student's doubt": [1 - tokens.collect(lambda sample: sample.top_probs)],
        "student's entropy": [entropy],
        "student's surprisal": [-tokens.collect(lambda sample: sample.scored.logprobs)],
        **{
            f"{score}, {name}": [tokens.collect_features(reference, get_values)]
            for name, reference in _OTHER_TEACHERS.items()
            for score, get_values in _TEACHER_SCORES.items()
        },
    }
    undecided = entropy >= UNDECIDED_ENTROPY
    scores |= _scores_of_contrasts(tokens)
    everywhere, measured = np.ones(len(tokens.groups), bool), tokens.collect(lambda item: item.truth.measured_mask)
    questions = {
        "all": (tokens.decisive, everywhere),
        "undecided": (tokens.decisive, undecided | tokens.decisive),
        "measured": (tokens.decisive, measured),
        "places": (tokens.concatenate(_decisive_choice_masks(samples)), everywhere),
    }
    return {
        name: {
            score: ranking_estimates(arm_scores, positives, among, tokens.groups)
            for score, arm_scores in scores.items()
        }
        for name, (positives, among) in questions.items()
    }


def _scores_of_contrasts(tokens: PooledTokens) -> dict[str, list[_Array]]:
    """What the methods weigh by that compare siblings or two teachers."""

    def divergence(reference: int) -> _Array:
        return tokens.collect_features(reference, lambda features: features.divergence)

    signs = tokens.collect_constant(lambda sample: np.sign(sample.scored.advantage))
    gap = tokens.collect_features(OWN_AND_SWAPPED, lambda features: features.teacher_logprob_gap)
    return {
        "partings of siblings": [tokens.concatenate(_parting_shares(tokens.samples))],
        "divergence beyond neutral text": [np.maximum(divergence(UNDER_OWN) - divergence(UNDER_NEUTRAL), 0)],
        "gap the way of the advantage, own against swapped": [signs * gap],
    }


def _parting_shares(samples: Sequence[RolloutWithTruth]) -> list[_Array]:
    """The shares of `parting` with its default settings; the rollouts of a group stand side by side."""
    shares: list[_Array] = []
    decay = PartingMethodSettings(name="parting").decay
    for _, members in groupby(samples, key=lambda sample: sample.scored.group_index):
        siblings = [member.scored for member in members]
        signs = [float(np.sign(scored.advantage)) for scored in siblings]
        shares += find_shares([scored.rollout for scored in siblings], signs, decay)
    return shares


def _student_entropy(features: Features) -> _Array:
    assert features.student_entropy is not None
    return features.student_entropy


def measure_sign_agreement(samples: Sequence[RolloutWithTruth]) -> dict[str, Any] | None:
    """Share of decisive tokens at which a number has the sign of the true advantage; a zero counts half."""
    tokens = PooledTokens(samples)
    if not tokens.decisive.any():
        return None
    signs = {
        "gap": tokens.collect_features(UNDER_OWN, lambda features: features.teacher_logprob_gap),
        "shuffled gap": tokens.collect_features(UNDER_NEXT, lambda features: features.teacher_logprob_gap),
        **{
            f"gap, {name}": tokens.collect_features(reference, lambda features: features.teacher_logprob_gap)
            for name, reference in _OTHER_TEACHERS.items()
        },
        "rollout's advantage": tokens.collect(
            lambda sample: np.full(len(sample.scored.rollout.response), sample.scored.advantage)
        ),
    }
    truth = np.sign(tokens.collect(lambda sample: sample.truth.advantage)[tokens.decisive])
    agree = np.stack([(1 + np.sign(sign[tokens.decisive]) * truth) / 2 for sign in signs.values()])

    def shares(weight: Float64Array) -> list[float]:
        return (agree @ weight / weight.sum()).tolist() if weight.any() else [np.nan] * len(agree)

    values = leave_one_out(shares, tokens.groups[tokens.decisive])
    return {name: jackknife_estimate(row, is_share=True).to_json() for name, row in zip(signs, values, strict=True)}


def measure_credit_shares(samples: Sequence[RolloutWithTruth], signals: Sequence[Signal]) -> dict[str, Any]:
    """Shares of the weight above one by place, each with the share of the tokens at that place."""
    tokens = PooledTokens(samples, literals=True)
    credit = np.maximum(tokens.concatenate([item.credit.weight for item in signals]).astype(float) - 1, 0)
    places = {
        "decisive": tokens.decisive,
        "literals": ~tokens.collect(lambda item: item.truth.counted_mask),
        "boilerplate": tokens.collect(lambda item: item.top_probs) >= MAX_TOP_PROB,
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
    """Shares of the decisive tokens that meet each condition of a spike, that meet all, and that have credit."""
    condition_flags: list[_Array] = []
    for sample, signal in zip(samples, assign_credits(settings, UNDER_OWN, samples), strict=True):
        decisive = sample.truth.decisive_mask
        if decisive.any():
            conditions = [*_spike_conditions(sample, settings.segments), signal.saliency > 0]
            condition_flags.append(np.stack(conditions)[:, decisive])
    if not condition_flags:
        return None
    names = ("enough tokens", "enough nats", "high", "teacher confident", "all of these", "credited")
    return dict(zip(names, np.concatenate(condition_flags, axis=1).mean(axis=1).tolist(), strict=True))


def _spike_conditions(sample: RolloutWithTruth, settings: SegmentSettings) -> list[_Array]:
    """Flags by token: enough tokens, enough nats, high divergence, confident teacher, and all four."""
    counted, features = sample.truth.counted_mask, sample.scored.features_under(UNDER_OWN)
    d, h = features.divergence.astype(float), features.teacher_entropy.astype(float)
    scale = measure_scale(d[counted], h[counted], settings)
    enough_tokens = np.full(len(d), counted.sum() >= settings.min_tokens)
    enough_nats = d >= settings.min_divergence
    is_high = normalized_divergence(d, scale, settings) >= spike_threshold(settings)
    is_confident = h <= scale.max_entropy
    return [enough_tokens, enough_nats, is_high, is_confident, enough_tokens & enough_nats & is_high & is_confident]


def _decisive_choice_masks(samples: Sequence[RolloutWithTruth]) -> list[_Array]:
    """Tokens whose choice was decisive, or a sibling's choice after the same tokens."""
    decisive_contexts: set[tuple[int, bytes]] = set()
    contexts = [
        [
            (sample.scored.group_index, sample.scored.rollout.response[:place].tobytes())
            for place in range(len(sample.scored.rollout.response))
        ]
        for sample in samples
    ]
    for sample, context in zip(samples, contexts, strict=True):
        decisive_contexts |= {context[place] for place in np.flatnonzero(sample.truth.decisive_mask)}
    return [np.array([place in decisive_contexts for place in context], bool) for context in contexts]


def _turn_start_mask(sample: RolloutWithTruth) -> _Array:
    flags = np.zeros(len(sample.scored.rollout.response), bool)
    for turn in sample.scored.rollout.turns:
        flags[turn.start : min(turn.stop, turn.start + _TURN_START_TOKENS)] = True
    return flags


def _count_by_kind(flags: _Array, kinds: _Array) -> dict[str, int]:
    counts = {kind.name.lower(): int((flags & (kinds == kind)).sum()) for kind in _POLICY_KINDS}
    return {"all": int(flags.sum()), **counts}
