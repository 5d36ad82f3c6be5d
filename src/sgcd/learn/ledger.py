"""A step's credit in numbers (method.md 5, item 10): how much was scored, what stood out, where weight went."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods import Explained
from sgcd.records import Credit, Features, Flags, Kind, Rollout, Scored

FIRST = 32
"""Tokens of a turn that count as its beginning: style shows there first."""
BINS = 8
QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Deserved:
    """What a method said of one rollout, and what it had been shown."""

    rollout: Rollout
    explained: Explained
    features: Features | None
    creditable: Flags
    without: str = ""
    """Why there are no features: no_reference or no_room."""
    shuffled: Explained | None = None
    """What it would have said under a neighbour's reference."""

    @property
    def credit(self) -> Credit:
        return self.explained.signal.credit

    @property
    def scored(self) -> Scored:
        """For the run's folder."""
        if self.features is None:
            return Scored(self.credit)
        return Scored(self.credit, self.features, self.creditable, self.explained.segments.saliency)

    @property
    def reason(self) -> str:
        """Why there is no segment; empty where there could be one."""
        return self.without or self.explained.segments.reason

    @property
    def free(self) -> Flags:
        """Written by the policy, and no masked literal."""
        return self.rollout.mask & self.creditable


def ledger(deserved: Sequence[Deserved], weighs: bool) -> dict[str, Any]:
    """Tokens are those of rollouts that had a reference; `reasons` counts all others, and those without a segment."""
    scored = [each for each in deserved if each.features]
    d = _over(scored, "divergence")
    weight = _flat([each.credit.weight[each.free] for each in scored])
    return {
        "weighs": weighs,
        "rollouts": len(deserved),
        "scored": len(scored),
        "reasons": dict(Counter(each.reason for each in deserved if each.reason).most_common()),
        "tokens": sum(each.rollout.written for each in scored),
        "creditable": len(weight),
        "credited": int((weight > 1).sum()),
        "segments": sum(len(each.explained.segments.spans) for each in scored),
        "nonfinite": sum(each.explained.segments.nonfinite for each in scored),
        "divergence": {"mean": _mean(d), **_quantiles(d)},
        "entropy": _mean(_over(scored, "entropy")),
        "gap": _mean(_over(scored, "gap")),
        "weight": {
            "mean": _mean(_flat([each.credit.weight[each.rollout.mask] for each in deserved])),
            "clipped": _share(sum(each.explained.clipped for each in scored), len(weight)),
            "histogram": _histogram(weight, [each.credit for each in scored]),
        },
        "where": _where(scored),
    }


def overlap(deserved: Sequence[Deserved]) -> dict[str, Any]:
    """How far credit is the same under a neighbour's reference: |both| / |either|, over credited tokens."""
    pairs = [(each.credit.weight > 1, each.shuffled.signal.credit.weight > 1) for each in deserved if each.shuffled]
    own, other = (_flat([pair[side] for pair in pairs]).astype(bool) for side in (0, 1))
    return {
        "rollouts": len(pairs),
        "own": int(own.sum()),
        "other": int(other.sum()),
        "both": int((own & other).sum()),
        "overlap": _share(int((own & other).sum()), int((own | other).sum())),
    }


def _where(scored: Sequence[Deserved]) -> dict[str, Any]:
    """Shares of the weight above one, and beside each the share of the tokens that were written there."""
    extra = _flat([np.maximum(each.credit.weight - 1, 0)[each.rollout.mask] for each in scored])
    kinds = _flat([each.rollout.kinds[each.rollout.mask] for each in scored])
    first = _flat([_first(each.rollout)[each.rollout.mask] for each in scored])
    places = {kind.name.lower(): kinds == kind for kind in Kind if kind != Kind.GLUE} | {"first": first > 0}
    return {
        name: {"credit": _share(extra[there].sum(), extra.sum()), "tokens": _share(there.sum(), len(there))}
        for name, there in places.items()
    }


def _first(rollout: Rollout) -> Flags:
    """The first tokens of each turn."""
    flags = np.zeros(len(rollout.response), np.bool_)
    for turn in rollout.turns:
        flags[turn.start : min(turn.stop, turn.start + FIRST)] = True
    return flags


def _histogram(weight: NDArray[Any], credit: Sequence[Credit]) -> dict[str, Any] | None:
    """Creditable tokens by weight, between the floor and the cap; those at exactly one are counted by themselves."""
    if not credit or credit[0].floor == credit[0].cap:
        return None
    ends = (credit[0].floor, credit[0].cap)
    counts, edges = np.histogram(np.clip(weight[weight != 1].astype(np.float64), *ends), BINS, ends)
    return {"one": int((weight == 1).sum()), "edges": edges.round(6).tolist(), "counts": counts.tolist()}


def _over(scored: Sequence[Deserved], name: str) -> NDArray[Any]:
    """A feature at every creditable token where it is finite."""
    numbers = _flat([getattr(each.features, name)[each.free] for each in scored])
    return numbers[np.isfinite(numbers)]


def _flat(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


def _quantiles(numbers: NDArray[Any]) -> dict[str, float | None]:
    names = ("median", "p90", "p99", "max")
    if not numbers.size:
        return dict.fromkeys(names)
    found = np.quantile(numbers.astype(np.float64), QUANTILES, method="lower")
    return dict(zip(names, map(float, found), strict=True))


def _mean(numbers: NDArray[Any]) -> float | None:
    return float(numbers.astype(np.float64).mean()) if numbers.size else None


def _share(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None
