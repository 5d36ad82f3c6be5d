"""Where a weighting puts credit at the long desk: on decisions, and on those whose advantage has the right sign."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.lab.long_desk.scores import DeskRollout
from sgcd.lab.long_desk.teachers import DeskFeatures
from sgcd.lab.long_desk.weightings import TokenAdvantages
from sgcd.measure.statistics import Estimate, jackknife_estimate
from sgcd.records import Group
from sgcd.settings import UNDECIDED_ENTROPY

MixedGroups = Sequence[tuple[Group, Sequence[DeskRollout]]]
"""Groups whose siblings differ in outcome, with the policy's numbers."""
_Split = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weights of what should have more, and of what should have less."""


def locate_credit(mixed: MixedGroups, weighted: Sequence[TokenAdvantages]) -> dict[str, Any]:
    """For each weighting two areas under the curve, .5 being no better than chance.

    place: decisions against all other tokens at which the policy is undecided. sign: decisions that are what the
    rollout's outcome calls them, against the other decisions.
    """
    found: dict[str, Any] = {}
    for name in weighted[0]:
        places, signs = list[_Split](), list[_Split]()
        for (_, scored), advantages in zip(mixed, weighted, strict=True):
            weights = [
                np.abs(values).astype(np.float64) / np.abs(plain).max()
                for values, plain in zip(advantages[name], advantages["grpo"], strict=True)
            ]
            at = [values[one.places] for values, one in zip(weights, scored, strict=True)]
            others = [values[_is_other_choice(one)] for values, one in zip(weights, scored, strict=True)]
            fits = [one.is_right == one.rollout.success for one in scored]
            places.append((np.concatenate(at), np.concatenate(others)))
            signs.append(_split(np.concatenate(at), np.concatenate(fits)))
        found[name] = {"place": _area(places).to_json(), "sign": _area(signs).to_json()}
    return found


def read_sign(mixed: MixedGroups, features: Sequence[DeskFeatures]) -> Estimate:
    """The share of decisions at which the teacher moves the sampled tool the true way: up where it is right."""
    counts: list[tuple[float, int]] = []
    for (_, scored), of_group in zip(mixed, features, strict=True):
        agree = [
            (own.teacher_logprob_gap[one.places] > 0) == one.is_right
            for one, own in zip(scored, of_group["own"], strict=True)
            if own is not None
        ]
        joined = np.concatenate(agree) if agree else np.zeros(0, np.bool_)
        counts.append((float(joined.sum()), joined.size))
    table = np.array(counts)
    left = table.sum(axis=0) - table
    if not table[:, 1].sum() or not left[:, 1].all():
        return Estimate(None, reason="no group has a reference")
    return jackknife_estimate(np.append(table[:, 0].sum() / table[:, 1].sum(), left[:, 0] / left[:, 1]), is_share=True)


def _is_other_choice(one: DeskRollout) -> NDArray[np.bool_]:
    return one.rollout.response_mask & ~one.is_decision & (one.entropies >= UNDECIDED_ENTROPY)


def _split(values: NDArray[np.float64], is_more: NDArray[np.bool_]) -> _Split:
    return values[is_more], values[~is_more]


def _area(groups: Sequence[_Split]) -> Estimate:
    """Over all groups together, with the jackknife over groups."""
    everything = [_auroc(groups)]
    return jackknife_estimate(
        np.array(everything + [_auroc([*groups[:index], *groups[index + 1 :]]) for index in range(len(groups))])
    )


def _auroc(groups: Sequence[_Split]) -> float:
    """The share of pairs in which more is more; equal ones count half."""
    more, less = (np.concatenate([np.zeros(0), *(group[side] for group in groups)]) for side in (0, 1))
    if not more.size or not less.size:
        return float("nan")
    less = np.sort(less)
    below, up_to = np.searchsorted(less, more, "left"), np.searchsorted(less, more, "right")
    return float((below + up_to).mean() / 2 / less.size)
