"""Whether credit is where the decisions are: scores against decisive tokens, signs against the truth, shares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods.sgcd import Explained
from sgcd.credit.segments import heights, spike_of, statistics
from sgcd.credit.settings import Sgcd
from sgcd.lab.arms import OWN, SHUFFLED, Judged, explain, published
from sgcd.lab.ranking import Ranking, bootstrap
from sgcd.lab.truth import TOP
from sgcd.measure.statistics import Numbers
from sgcd.records import Kind

FIRST = 32
"""Tokens of a turn that count as its beginning: where a hint that only shifts the style would put the credit."""
CHANCE = 0.0027
"""Two-sided probability beyond three standard errors."""
Array = NDArray[Any]
WRITTEN = (Kind.THINKING, Kind.CALL, Kind.ANSWER)


class Tokens:
    """The tokens of many rollouts in one row: those that the policy wrote, with or without masked literals."""

    def __init__(self, judged: Sequence[Judged], literals: bool = False) -> None:
        self.judged = judged
        self._masks = [one.rollout.mask if literals else one.truth.counted for one in judged]
        self.groups = self.of(lambda one: np.full(len(one.rollout.response), one.group))
        self.decisive = self.of(lambda one: one.truth.decisive)
        self.kinds = self.of(lambda one: one.rollout.kinds)

    def of(self, number: Callable[[Judged], Array]) -> Array:
        return self.row([number(one) for one in self.judged])

    def row(self, arrays: Sequence[Array]) -> Array:
        return np.concatenate([array[mask] for array, mask in zip(arrays, self._masks, strict=True)])


def found_out(judged: Sequence[Judged]) -> dict[str, Any]:
    """How much was measured, and how much of it decides."""
    tokens = Tokens(judged)
    measured = tokens.of(lambda one: one.truth.measured)
    advantage = np.abs(tokens.of(lambda one: one.truth.advantage)[tokens.decisive])
    written = sum(one.rollout.written for one in judged)
    return {
        "rollouts": len(judged),
        "groups": len(np.unique(tokens.groups)),
        "tokens": written,
        "literals": written - len(tokens.groups),
        "measured": _by_kind(measured, tokens.kinds),
        "decisive": _by_kind(tokens.decisive, tokens.kinds),
        "decisive by chance": round(CHANCE * int(measured.sum()), 1),
        "size of a decisive advantage": float(advantage.mean()) if len(advantage) else None,
    }


def located(judged: Sequence[Judged], told: Sgcd) -> dict[str, Any]:
    """AUROC and average precision against decisive tokens, of the own and of the shuffled reference's teacher.

    Negatives are all other tokens; then only those that were measured, which is the harder question; then the question
    is put of places: are tokens found where this choice or a sibling's, in the very same context, was decisive? Beside
    the method's own numbers stand two that explain them: the gap knows which token was sampled, the divergence only
    where; the student's doubt, one minus its largest probability, needs no reference at all.
    """
    tokens = Tokens(judged)
    said, by_the_book = ([explain(way, arm, judged) for arm in (OWN, SHUFFLED)] for way in (told, published(told)))
    gaps = [tokens.row([one.shown.features[arm].gap for one in judged]) for arm in (OWN, SHUFFLED)]
    scores = {
        "divergence": [tokens.row([one.shown.features[arm].divergence for one in judged]) for arm in (OWN, SHUFFLED)],
        "size of the gap": [np.abs(gap) for gap in gaps],
        "weight": [tokens.row([one.signal.credit.weight for one in arm]) for arm in said],
        "weight, published": [tokens.row([one.signal.credit.weight for one in arm]) for arm in by_the_book],
        "student's doubt": [1 - tokens.of(lambda one: one.shown.top)],
    }
    everywhere, measured = np.ones(len(tokens.groups), bool), tokens.of(lambda one: one.truth.measured)
    questions = {
        "all": (tokens.decisive, everywhere),
        "measured": (tokens.decisive, measured),
        "places": (tokens.row(_places(judged)), everywhere),
    }
    return {
        name: {score: _ranked(both, found, here, tokens.groups) for score, both in scores.items()}
        for name, (found, here) in questions.items()
    }


def direction(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """Share of decisive tokens at which a number has the sign of the true advantage; no sign counts half."""
    tokens = Tokens(judged)
    if not tokens.decisive.any():
        return None
    signs = {
        "gap": tokens.row([one.shown.features[OWN].gap for one in judged]),
        "shuffled gap": tokens.row([one.shown.features[SHUFFLED].gap for one in judged]),
        "rollout's advantage": tokens.of(lambda one: np.full(len(one.rollout.response), one.advantage)),
    }
    truth = np.sign(tokens.of(lambda one: one.truth.advantage)[tokens.decisive])
    agree = np.stack([(1 + np.sign(sign[tokens.decisive]) * truth) / 2 for sign in signs.values()])

    def shares(weight: Numbers) -> list[float]:
        return (agree @ weight / weight.sum()).tolist() if weight.any() else [np.nan] * len(agree)

    estimates = bootstrap(shares, tokens.groups[tokens.decisive])
    return dict(zip(signs, (estimate.plain() for estimate in estimates), strict=True))


def credit_shares(judged: Sequence[Judged], said: Sequence[Explained]) -> dict[str, Any]:
    """Where the weight above one lies; beside each share, the share of the tokens that lie there anyway."""
    tokens = Tokens(judged, literals=True)
    credit = np.maximum(tokens.row([one.signal.credit.weight for one in said]).astype(float) - 1, 0)
    places = {
        "decisive": tokens.decisive,
        "literals": ~tokens.of(lambda one: one.truth.counted),
        "boilerplate": tokens.of(lambda one: one.shown.top) >= TOP,
        f"first {FIRST} of a turn": tokens.of(_beginnings),
        **{kind.name.lower(): tokens.kinds == kind for kind in WRITTEN},
    }
    total = float(credit.sum())
    return {
        "credited tokens": float((credit > 0).mean()),
        "mean weight": 1 + float(credit.mean()),
        "shares": {
            name: {"credit": float(credit[here].sum()) / total if total else None, "tokens": float(here.mean())}
            for name, here in places.items()
        },
    }


def conditions(judged: Sequence[Judged], told: Sgcd) -> dict[str, Any] | None:
    """Of the decisive tokens, the share at which each condition of a spike holds, all of them hold, credit arrives."""
    met: list[Array] = []
    for one, explained in zip(judged, explain(told, OWN, judged), strict=True):
        here, valid, features = one.truth.decisive, one.truth.counted, one.shown.features[OWN]
        if not here.any():
            continue
        d, h = features.divergence.astype(float), features.entropy.astype(float)
        facts = statistics(d[valid], h[valid], told.segments)
        enough, high = d >= told.segments.least, heights(d, facts, told.segments) >= spike_of(told.segments)
        confident = h <= facts.confident
        many = np.full(len(d), valid.sum() >= told.segments.tokens)
        credited = explained.segments.saliency > 0
        met.append(np.stack([many, enough, high, confident, many & enough & high & confident, credited])[:, here])
    names = ("enough tokens", "enough nats", "high", "teacher confident", "all of these", "credited")
    return dict(zip(names, np.concatenate(met, axis=1).mean(axis=1).tolist(), strict=True)) if met else None


def _places(judged: Sequence[Judged]) -> list[Array]:
    """Tokens whose choice, or a sibling's after the very same words, was decisive."""
    known: set[tuple[int, bytes]] = set()
    contexts = [
        [(one.group, one.rollout.response[:place].tobytes()) for place in range(len(one.rollout.response))]
        for one in judged
    ]
    for one, context in zip(judged, contexts, strict=True):
        known |= {context[place] for place in np.flatnonzero(one.truth.decisive)}
    return [np.array([place in known for place in context], bool) for context in contexts]


def _beginnings(one: Judged) -> Array:
    flags = np.zeros(len(one.rollout.response), bool)
    for turn in one.rollout.turns:
        flags[turn.start : min(turn.stop, turn.start + FIRST)] = True
    return flags


def _ranked(both: Sequence[Array], decisive: Array, among: Array, groups: Array) -> Mapping[str, Any] | None:
    some = decisive[among]
    if not some.any() or some.all():
        return None
    rankings = [Ranking.of(score[among], some) for score in both]
    names = ("own", "shuffled", "own - shuffled") if len(both) == 2 else ("own",)

    def figures(weight: Numbers) -> list[float]:
        found = zip(*(ranking.figures(weight) for ranking in rankings), strict=True)
        return [figure for row in found for figure in (*row, *(row[0] - other for other in row[1:]))]

    plain = [estimate.plain() for estimate in bootstrap(figures, groups[among])]
    return {
        "share decisive": float(some.mean()),
        "auroc": dict(zip(names, plain[: len(names)], strict=True)),
        "average precision": dict(zip(names, plain[len(names) :], strict=True)),
    }


def _by_kind(flags: Array, kinds: Array) -> dict[str, int]:
    counts = {kind.name.lower(): int((flags & (kinds == kind)).sum()) for kind in WRITTEN}
    return {"all": int(flags.sum()), **counts}
