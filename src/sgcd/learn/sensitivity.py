"""How much credit depends on what a reference says: the same rollouts under other references, token by token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.contrast.literals import creditable
from sgcd.contrast.mask import Literals
from sgcd.contrast.refer import Contrast
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import Method
from sgcd.learn.contrasted import Contrasted, shown
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.student import score
from sgcd.learn.teacher import Lesson, teach
from sgcd.measure.statistics import spread, stats, within
from sgcd.records import Features, Floats, Reference, Siblings

Array = NDArray[Any]
Texts = Mapping[str, Sequence[Sequence[str]]]
"""By arm and group: the references that the arm puts in place of the group's own; several where it has variants."""
OWN = "own"


@dataclass(frozen=True, slots=True)
class Case:
    """Kept siblings, the reference that their credit was read from, and the literals that credit keeps off."""

    siblings: Siblings
    own: str
    literals: Literals


@dataclass(frozen=True, slots=True)
class Scorer:
    """A policy and a method, as a run has them."""

    model: Any
    contrast: Contrast
    method: Method
    surrogate: SurrogateSettings
    temperature: float
    tokens: int
    """In one forward pass."""
    room: int
    """Bytes for logits and what is made of them."""
    window: int


@dataclass(frozen=True, slots=True)
class Weighed:
    """A group under one reference, over the tokens that may have credit: end to end, in the order of the rollouts."""

    weight: Floats
    divergence: Floats


def weigh(scorer: Scorer, cases: Sequence[Case], texts: Sequence[Sequence[str]]) -> list[dict[str, Weighed]]:
    """Each group under its own reference and under each of its `texts`, by text; one that has no room is left out."""
    method, needs = scorer.method, scorer.method.needs
    if needs is None:
        raise ValueError("a method that reads no reference has nothing to compare")
    wanted = [list(dict.fromkeys([case.own, *some])) for case, some in zip(cases, texts, strict=True)]
    most = max(map(len, wanted), default=0)
    rollouts = [rollout for case in cases for rollout in case.siblings.rollouts]
    flags = [creditable(one, case.literals, scorer.contrast.chat) for case in cases for one in case.siblings.rollouts]
    arms: list[list[Contrasted]] = []
    for number in range(most):
        given = [some[number] if number < len(some) else None for some in wanted]
        each = [text for text, case in zip(given, cases, strict=True) for _ in case.siblings.rollouts]
        arms.append([_shown(*one, scorer) for one in zip(rollouts, each, flags, strict=True)])
    how = scorer.temperature, scorer.tokens
    lessons: list[list[Lesson | None]] = []
    for arm in arms:
        some = [(one.rollout, one.row) for one in arm if one.row is not None]
        taught = iter(
            teach(scorer.model, [one for one, _ in some], [row for _, row in some], *how, needs.k, scorer.room)
        )
        lessons.append([None if one.row is None else next(taught) for one in arm])
    features = score(scorer.model, rollouts, lessons, *how, needs.divergence, scorer.room).features
    method.calibrate([(r, f, one) for r, f, one in zip(rollouts, features[0], flags, strict=True) if f])
    gains = [
        float(gain)
        for case in cases
        for gain in advantages(
            [one.reward for one in case.siblings.rollouts], scorer.surrogate.baseline, scorer.surrogate.std
        )
    ]
    found: list[dict[str, Weighed]] = []
    at = 0
    for case, some in zip(cases, wanted, strict=True):
        here = range(at, at + len(case.siblings.rollouts))
        at = here.stop
        found.append({})
        for text, seen in zip(some, features, strict=False):
            if all(seen[index] is not None for index in here):
                parts = [_weighed(method, rollouts[i], gains[i], seen[i], flags[i]) for i in here]
                found[-1][text] = Weighed(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return found


def _shown(rollout: Any, text: str | None, flags: Any, scorer: Scorer) -> Contrasted:
    reference = None if text is None else Reference(rollout.task, text, "")
    return shown(rollout, reference, flags, scorer.contrast, scorer.window)


def _weighed(method: Method, rollout: Any, gain: float, features: Features | None, flags: Any) -> tuple[Floats, Floats]:
    free = rollout.mask & flags
    weight = method.explain(rollout, gain, features, flags).signal.credit.weight[free]
    return weight, features.divergence[free] if features else np.zeros(int(free.sum()), np.float32)


def compare(
    weighed: Sequence[Mapping[str, Weighed]], cases: Sequence[Case], arm: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """One arm against the groups' own references; every group counts the same, and so does each of its variants."""
    same, pairs = list[float](), list[list[tuple[Weighed, Weighed]]]()
    for found, case, texts in zip(weighed, cases, arm, strict=True):
        there = [text for text in texts if text in found]
        if case.own in found and there:
            same.append(float(np.mean([text == case.own for text in there])))
            pairs.append([(found[case.own], found[text]) for text in there])
    return {
        "groups": len(pairs),
        "references": sum(map(len, pairs)),
        "same_text": float(np.mean(same)) if same else None,
        "overlap": over(pairs, lambda a, b: overlap(a.weight, b.weight), 0.0),
        "weights": over(pairs, lambda a, b: ranks(a.weight, b.weight), -1.0),
        "divergences": over(pairs, lambda a, b: ranks(a.divergence, b.divergence), -1.0),
        "divergence": over(pairs, lambda _, b: mean(b.divergence), 0.0, np.inf),
        "credited": over(pairs, lambda _, b: mean(b.weight > 1), 0.0),
    }


def over(
    pairs: Sequence[Sequence[tuple[Weighed, Weighed]]],
    figure: Callable[[Weighed, Weighed], float | None],
    low: float,
    high: float = 1.0,
) -> dict[str, Any]:
    """The mean over groups of each group's mean over its variants, with Student's t interval over groups.

    Groups that have no such figure are left out; how many are in it stands beside.
    """
    means: list[float] = []
    for some in pairs:
        numbers = [number for pair in some if (number := figure(*pair)) is not None]
        means += [float(np.mean(numbers))] if numbers else []
    return {**within(spread(means), low, high).plain(), "groups": len(means)}


def overlap(own: Array, other: Array) -> float | None:
    """Jaccard: tokens credited under both over tokens credited under either; None where none is.

    >>> overlap(np.array([1.0, 2.0, 1.5]), np.array([1.0, 1.0, 1.2]))
    0.5
    """
    first, second = own > 1, other > 1
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else None


def ranks(own: Array, other: Array) -> float | None:
    """Spearman's rank correlation; None where one side does not vary.

    >>> round(ranks(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 5.0])), 2)
    0.5
    """
    some = np.isfinite(own) & np.isfinite(other)
    own, other = own[some], other[some]
    if len(own) < 2 or np.ptp(own) == 0 or np.ptp(other) == 0:
        return None
    return float(stats().spearmanr(own, other).statistic)


def mean(numbers: Array) -> float | None:
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    return float(finite.mean()) if len(finite) else None
