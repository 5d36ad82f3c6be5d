"""Measures how much credit depends on the reference: scores the same rollouts under several references."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.contrast.insert import build_teacher_input_ids
from sgcd.contrast.leakage.literals import tokens_outside_literals
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.credit.methods import CreditInputs, Method
from sgcd.credit_records import OWN_REFERENCE
from sgcd.measure.statistics import clip_interval, rank_correlation, t_interval
from sgcd.records import Flags, Floats, Group, Reference, TokenIds
from sgcd.study.score_groups import ScoredRollout, ScoringOptions, score_groups_under_references

_Array = NDArray[Any]
ArmReferences = Mapping[str, Sequence[Sequence[str]]]
"""By arm and group: the references that replace the group's own. There are several if the arm has variants."""
OWN_ARM = "own"


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """A kept group, the reference that its credit came from, and the literals that get no credit."""

    group: Group
    own_reference: str
    literals: Literals


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """A policy and a method, as a run has them."""

    model: Any
    reference_builder: ReferenceBuilder
    method: Method
    options: ScoringOptions
    window: int
    """The model's context window in tokens."""


@dataclass(frozen=True, slots=True)
class GroupWeights:
    """The creditable tokens of a group under one reference, concatenated in the order of the rollouts."""

    weight: Floats
    divergence: Floats


def score_references(
    context: ScoringContext, cases: Sequence[ReferenceCase], texts: Sequence[Sequence[str]]
) -> list[dict[str, GroupWeights]]:
    """Each group's weights by text, under its own reference and under each of its `texts`.

    A text is left out if it does not fit into the window.
    """
    case_texts = [
        list(dict.fromkeys([case.own_reference, *texts_of_case]))
        for case, texts_of_case in zip(cases, texts, strict=True)
    ]
    chat = context.reference_builder.chat
    masks = [tokens_outside_literals(rollout, case.literals, chat) for case in cases for rollout in case.group.rollouts]
    scored_rollouts = score_groups_under_references(
        context.model,
        [case.group for case in cases],
        [
            _build_input_ids(context, cases, [texts[number] if number < len(texts) else None for texts in case_texts])
            for number in range(max(map(len, case_texts), default=0))
        ],
        context.options,
    )
    creditable = list(zip(scored_rollouts, masks, strict=True))
    context.method.observe_step(
        [
            _credit_inputs(scored, mask, 0, cases[scored.group_index].group)
            for scored, mask in creditable
            if scored.features[0]
        ]
    )
    results: list[dict[str, GroupWeights]] = []
    for index, references in enumerate(case_texts):
        group = [(scored, mask) for scored, mask in creditable if scored.group_index == index]
        results.append(
            {
                text: _group_weights(context.method, cases[index].group, group, reference=number)
                for number, text in enumerate(references)
                if all(scored.features[number] is not None for scored, _ in group)
            }
        )
    return results


def _build_input_ids(
    context: ScoringContext, cases: Sequence[ReferenceCase], texts: Sequence[str | None]
) -> list[TokenIds | None]:
    """The teacher's input ids of each rollout under its group's text; None without a text or without room for it."""
    builder = context.reference_builder
    inputs: list[TokenIds | None] = []
    for case, text in zip(cases, texts, strict=True):
        for rollout in case.group.rollouts:
            free_tokens = context.window - len(rollout.prompt) - len(rollout.response)
            fitted = None if text is None else builder.fit_to_window(Reference(rollout.task, text, ""), free_tokens)
            inputs.append(build_teacher_input_ids(rollout, fitted.ids) if fitted else None)
    return inputs


def _credit_inputs(scored: ScoredRollout, mask: Flags, reference: int, group: Group) -> CreditInputs:
    features = {OWN_REFERENCE: scored.features_under(reference)}
    return CreditInputs(scored.rollout, scored.advantage, features, mask, group)


def _group_weights(
    method: Method, group: Group, scored_rollouts: Sequence[tuple[ScoredRollout, Flags]], *, reference: int
) -> GroupWeights:
    weights, divergences = list[Floats](), list[Floats]()
    for scored, mask in scored_rollouts:
        features, eligible = scored.features_under(reference), scored.rollout.response_mask & mask
        result = method.assign_credit(_credit_inputs(scored, mask, reference, group))
        weights.append(result.credit.weight[eligible])
        divergences.append(features.divergence[eligible])
    return GroupWeights(np.concatenate(weights), np.concatenate(divergences))


def compare_arm(
    weights: Sequence[Mapping[str, GroupWeights]], cases: Sequence[ReferenceCase], arm: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Compare one arm with the groups' own references. Groups count equally, and so do the variants of a group."""
    is_same, pairs = list[float](), list[list[tuple[GroupWeights, GroupWeights]]]()
    for by_text, case, texts in zip(weights, cases, arm, strict=True):
        variants = [text for text in texts if text in by_text]
        if case.own_reference in by_text and variants:
            is_same.append(float(np.mean([text == case.own_reference for text in variants])))
            pairs.append([(by_text[case.own_reference], by_text[text]) for text in variants])
    return {
        "groups": len(pairs),
        "references": sum(map(len, pairs)),
        "same_text": float(np.mean(is_same)) if is_same else None,
        "overlap": mean_over_groups(pairs, lambda a, b: credit_overlap(a.weight, b.weight), 0.0),
        "weights": mean_over_groups(pairs, lambda a, b: rank_correlation(a.weight, b.weight), -1.0),
        "divergences": mean_over_groups(pairs, lambda a, b: rank_correlation(a.divergence, b.divergence), -1.0),
        "divergence": mean_over_groups(pairs, lambda _, b: finite_mean(b.divergence), 0.0, np.inf),
        "credited": mean_over_groups(pairs, lambda _, b: finite_mean(b.weight > 1), 0.0),
    }


def mean_over_groups(
    pairs: Sequence[Sequence[tuple[GroupWeights, GroupWeights]]],
    statistic: Callable[[GroupWeights, GroupWeights], float | None],
    low: float,
    high: float = 1.0,
) -> dict[str, Any]:
    """The mean over groups of each group's mean over its variants, with Student's t interval over groups.

    Groups without a value are left out; "groups" is the number of the others.
    """
    means: list[float] = []
    for variants in pairs:
        values = [number for pair in variants if (number := statistic(*pair)) is not None]
        means += [float(np.mean(values))] if values else []
    return {**clip_interval(t_interval(means), low, high).to_json(), "groups": len(means)}


def credit_overlap(weights: _Array, other_weights: _Array) -> float | None:
    """Jaccard index: tokens credited under both over tokens credited under either; None if there are none.

    >>> credit_overlap(np.array([1.0, 2.0, 1.5]), np.array([1.0, 1.0, 1.2]))
    0.5
    """
    credited, other_credited = weights > 1, other_weights > 1
    either = int((credited | other_credited).sum())
    return int((credited & other_credited).sum()) / either if either else None


def finite_mean(values: _Array) -> float | None:
    """The mean of the finite values; None if there are none."""
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(finite.mean()) if len(finite) else None
