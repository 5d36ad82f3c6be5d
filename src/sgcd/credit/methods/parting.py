"""Parting: more weight where a rollout parts from siblings of the other outcome, without a teacher.

Two siblings are aligned turn by turn (equal calls first, then equal tools), and two aligned turns token by token. Each
place where one parts from the other is a span of its tokens; where it lacks what the other has, it is the next token.
The m-th place of a pair, from 0, has the share decay^m: what comes after a parting mostly follows from it.

    P_t = mean share at t over the siblings of the other outcome
    Q_t = mean share at t over the siblings of its own outcome
    R_t = the others' mean share, over siblings of their own outcome, at the places of which P_t is made
    W_t = low + (high - low) P_t (1 - min(Q_t, R_t))

The outcome is the sign of the advantage. A place counts as far as one side agrees within itself: free words, in which
all siblings differ, cancel. The source is this project, with everything that is chosen here: the order of turns, the
decay, and min(Q, R). Defaults: weights in [1, 2], decay 1/2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sgcd.align import Parting, find_partings, is_equal
from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod, weighted_credit
from sgcd.credit.segments import Doubles
from sgcd.credit.settings import PartingMethodSettings
from sgcd.credit_records import Signal
from sgcd.records import Call, Group, Rollout


class PartingMethod(StatelessMethod):
    needs = None
    facts = MethodFacts("alignment with siblings", "this project", "float64 formula, partings by hand")

    def __init__(self, settings: PartingMethodSettings) -> None:
        self.settings = settings
        self._group: Group | None = None
        self._advantages: Sequence[float] = ()
        self._shares: list[Doubles] = []

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """The siblings are aligned once, when the first of them comes."""
        group, advantages = inputs.group, inputs.group_advantages
        assert group is not None
        if group is not self._group or advantages != self._advantages:
            self._group, self._advantages = group, advantages
            self._shares = find_shares(group.rollouts, np.sign(advantages).tolist(), self.settings.decay)
        own = [rollout.sibling for rollout in group.rollouts].index(inputs.rollout.sibling)
        return weighted_credit(inputs, self._shares[own], self.settings)


def find_shares(rollouts: Sequence[Rollout], signs: Sequence[float], decay: float) -> list[Doubles]:
    """P (1 - min(Q, R)) at each token of each rollout; zero where no sibling has the other outcome."""
    places: dict[tuple[int, int], list[Parting]] = {}
    for i, first in enumerate(rollouts):
        for j in range(i):
            places[i, j] = find_token_partings(first, rollouts[j])
            places[j, i] = [Parting(place.other, place.own) for place in places[i, j]]

    def shares_with(i: int, sign: float) -> list[tuple[int, Doubles]]:
        return [
            (j, _place_shares(places[i, j], len(rollouts[i].response), decay))
            for j, other_sign in enumerate(signs)
            if j != i and other_sign == sign != 0
        ]

    def mean_share(i: int, sign: float) -> Doubles:
        shares = [share for _, share in shares_with(i, sign)]
        return np.mean(shares, axis=0) if shares else np.zeros(len(rollouts[i].response))

    within = [mean_share(i, sign) for i, sign in enumerate(signs)]
    result: list[Doubles] = []
    for i, sign in enumerate(signs):
        noise_sum = np.zeros(len(rollouts[i].response))
        for j, share in shares_with(i, -sign):
            for place in places[i, j]:
                span = slice(place.own.start, place.own.stop)
                noise_sum[span] += share[span] * within[j][place.other.start : place.other.stop].max(initial=0)
        apart, count = mean_share(i, -sign), max(1, signs.count(-sign))
        noise = np.divide(noise_sum / count, apart, out=np.zeros_like(apart), where=apart > 0)
        result.append(apart * (1 - np.minimum(within[i], noise)))
    return result


def find_token_partings(own: Rollout, other: Rollout) -> list[Parting]:
    """Where one rollout parts from another, in places of their responses; no span is empty."""
    own_turns, other_turns = _read_turns(own), _read_turns(other)
    if not own_turns or not other_turns:
        return []
    found: list[Parting] = []
    for turns in find_partings(own_turns, other_turns, _turn_similarity):
        if not turns.is_pair:
            found.append(Parting(_span_of(own_turns, turns.own), _span_of(other_turns, turns.other)))
            continue
        first, second = own_turns[turns.own.start], other_turns[turns.other.start]
        for tokens in find_partings(first.ids, second.ids, is_equal):
            found.append(Parting(first.place(tokens.own), second.place(tokens.other)))
    return found


@dataclass(frozen=True, slots=True)
class _TurnTokens:
    """A turn as it is compared."""

    ids: tuple[int, ...]
    calls: tuple[Call, ...]
    start: int = field(compare=False)

    def place(self, span: range) -> range:
        """A span of the turn's tokens in the response; of an empty one the next token, or the last."""
        start = max(0, min(span.start, len(self.ids) - 1))
        return range(self.start + start, self.start + max(span.stop, start + 1))


def _read_turns(rollout: Rollout) -> list[_TurnTokens]:
    return [
        _TurnTokens(tuple(rollout.response[turn.start : turn.stop].tolist()), turn.calls, turn.start)
        for turn in rollout.turns
        if turn.stop > turn.start
    ]


def _turn_similarity(first: _TurnTokens, second: _TurnTokens) -> int:
    """Equal calls before equal tools before anything."""
    same_tools = [call.name for call in first.calls] == [call.name for call in second.calls]
    return 1 + 100 * same_tools + 100 * (first.calls == second.calls)


def _span_of(turns: Sequence[_TurnTokens], span: range) -> range:
    """Whole turns; of none, the first token of the next turn, or the last token of all."""
    if span.start == len(turns):
        return turns[-1].place(range(len(turns[-1].ids), len(turns[-1].ids)))
    if not span:
        return turns[span.start].place(range(0))
    last = turns[span.stop - 1]
    return range(turns[span.start].start, last.start + len(last.ids))


def _place_shares(places: Sequence[Parting], num_tokens: int, decay: float) -> Doubles:
    """decay^m at the m-th place; where places share a token, the earlier one's."""
    shares = np.zeros(num_tokens)
    for number, place in enumerate(places):
        span = shares[place.own.start : place.own.stop]
        span[span == 0] = decay**number
    return shares
