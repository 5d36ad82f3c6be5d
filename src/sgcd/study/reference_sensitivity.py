"""How much credit depends on what a reference says: the same rollouts under other references, token by token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.contrast.leakage.literals import creditable_mask
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import Method
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.scoring.teacher import TeacherTopK, score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput, build_teacher_input
from sgcd.learn.settings import SurrogateSettings
from sgcd.measure.statistics import clip_interval, scipy_stats, t_interval
from sgcd.records import Features, Floats, Group, Reference, Rollout

_Array = NDArray[Any]
ArmReferences = Mapping[str, Sequence[Sequence[str]]]
"""By arm and group: the references that the arm puts in place of the group's own; several where it has variants."""
OWN_ARM = "own"


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """Kept siblings, the reference that their credit was read from, and the literals that credit keeps off."""

    group: Group
    own_reference: str
    literals: Literals


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """A policy and a method, as a run has them."""

    model: Any
    reference_builder: ReferenceBuilder
    method: Method
    surrogate: SurrogateSettings
    temperature: float
    micro_batch_tokens: int
    """In one forward pass."""
    logits_bytes: int
    """Bytes for logits and what is made of them."""
    window: int


@dataclass(frozen=True, slots=True)
class GroupWeights:
    """A group under one reference, over the tokens that may have credit: end to end, in the order of the rollouts."""

    weight: Floats
    divergence: Floats


def score_references(
    context: ScoringContext, cases: Sequence[ReferenceCase], texts: Sequence[Sequence[str]]
) -> list[dict[str, GroupWeights]]:
    """Each group under its own reference and under each of its `texts`, by text; one that has no room is left out."""
    method, needs = context.method, context.method.needs
    if needs is None:
        raise ValueError("a method that reads no reference has nothing to compare")
    references = [list(dict.fromkeys([case.own_reference, *some])) for case, some in zip(cases, texts, strict=True)]
    max_references = max(map(len, references), default=0)
    rollouts = [rollout for case in cases for rollout in case.group.rollouts]
    flags = [
        creditable_mask(one, case.literals, context.reference_builder.chat)
        for case in cases
        for one in case.group.rollouts
    ]
    arms: list[list[TeacherInput]] = []
    for number in range(max_references):
        column = [some[number] if number < len(some) else None for some in references]
        rollout_texts = [text for text, case in zip(column, cases, strict=True) for _ in case.group.rollouts]
        arms.append([_build_input(*one, context) for one in zip(rollouts, rollout_texts, flags, strict=True)])
    forward_args = context.temperature, context.micro_batch_tokens
    teacher_topk: list[list[TeacherTopK | None]] = []
    for arm in arms:
        some = [(one.rollout, one.input_ids) for one in arm if one.input_ids is not None]
        teacher_scores = iter(
            score_teacher(
                context.model,
                [one for one, _ in some],
                [row for _, row in some],
                *forward_args,
                needs.k,
                context.logits_bytes,
            )
        )
        teacher_topk.append([None if one.input_ids is None else next(teacher_scores) for one in arm])
    features = score_student_no_grad(
        context.model, rollouts, teacher_topk, *forward_args, needs.divergence, context.logits_bytes
    ).features
    method.calibrate([(r, f, one) for r, f, one in zip(rollouts, features[0], flags, strict=True) if f])
    group_advantages = [
        float(gain)
        for case in cases
        for gain in advantages(
            [one.reward for one in case.group.rollouts], context.surrogate.baseline, context.surrogate.scale_by_std
        )
    ]
    results: list[dict[str, GroupWeights]] = []
    start = 0
    for case, some in zip(cases, references, strict=True):
        indices = range(start, start + len(case.group.rollouts))
        start = indices.stop
        results.append({})
        for text, arm_features in zip(some, features, strict=False):
            if all(arm_features[index] is not None for index in indices):
                parts = [
                    _assign_weights(method, rollouts[i], group_advantages[i], arm_features[i], flags[i])
                    for i in indices
                ]
                results[-1][text] = GroupWeights(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return results


def _build_input(rollout: Rollout, text: str | None, creditable_flags: Any, context: ScoringContext) -> TeacherInput:
    reference = None if text is None else Reference(rollout.task, text, "")
    return build_teacher_input(rollout, reference, creditable_flags, context.reference_builder, context.window)


def _assign_weights(
    method: Method, rollout: Rollout, advantage: float, features: Features | None, creditable_flags: Any
) -> tuple[Floats, Floats]:
    eligible = rollout.response_mask & creditable_flags
    weight = method.assign_credit(rollout, advantage, features, creditable_flags).signal.credit.weight[eligible]
    return weight, features.divergence[eligible] if features else np.zeros(int(eligible.sum()), np.float32)


def compare_arm(
    weights: Sequence[Mapping[str, GroupWeights]], cases: Sequence[ReferenceCase], arm: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """One arm against the groups' own references; every group counts the same, and so does each of its variants."""
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

    Groups that have no such figure are left out; how many are in it stands beside.
    """
    means: list[float] = []
    for variants in pairs:
        values = [number for pair in variants if (number := statistic(*pair)) is not None]
        means += [float(np.mean(values))] if values else []
    return {**clip_interval(t_interval(means), low, high).to_json(), "groups": len(means)}


def credit_overlap(weights: _Array, other_weights: _Array) -> float | None:
    """Jaccard: tokens credited under both over tokens credited under either; None where none is.

    >>> overlap(np.array([1.0, 2.0, 1.5]), np.array([1.0, 1.0, 1.2]))
    0.5
    """
    credited, other_credited = weights > 1, other_weights > 1
    either = int((credited | other_credited).sum())
    return int((credited & other_credited).sum()) / either if either else None


def rank_correlation(first: _Array, second: _Array) -> float | None:
    """Spearman's rank correlation; None where one side does not vary.

    >>> round(ranks(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 5.0])), 2)
    0.5
    """
    finite = np.isfinite(first) & np.isfinite(second)
    first, second = first[finite], second[finite]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(scipy_stats().spearmanr(first, second).statistic)


def finite_mean(values: _Array) -> float | None:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(finite.mean()) if len(finite) else None
