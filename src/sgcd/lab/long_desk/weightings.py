"""Token advantages at the long desk: of methods without and with a teacher, and of weights that know the truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from sgcd.credit.advantage import advantages
from sgcd.credit.methods import CreditInputs, build_method
from sgcd.credit.methods.pull.by_turn import read_parts
from sgcd.credit.settings import MethodSettings
from sgcd.credit_records import OWN_REFERENCE
from sgcd.lab.long_desk.scores import DeskRollout
from sgcd.lab.long_desk.teachers import DeskFeatures
from sgcd.records import Flags, Floats, Group, TokenKind

TokenAdvantages = dict[str, list[Floats]]
"""By weighting, one array for each rollout of a group."""
_METHODS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"name": "grpo"},
    "thinking mask .2": {"name": "thinking_mask"},
    "entropy [1, 2]": {"name": "entropy"},
    "entropy [.2, 1]": {"name": "entropy", "low": 0.2, "high": 1.0},
    "surprisal [1, 2]": {"name": "surprisal"},
    "random [1, 2]": {"name": "random"},
    "parting [1, 2]": {"name": "parting"},
    "turn values": {"name": "turn_values"},
    "by turn": {"name": "by_turn"},
    "by turn, thinking .2": {"name": "by_turn", "thinking": 0.2},
}
_PUBLISHED = {"name": "sgcd", "min_entropy": 0, "require_reading": False}
_WITH_TEACHER: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "sgcd": (_PUBLISHED, "own"),
    "sgcd, swapped": (_PUBLISHED, "swapped"),
    "sgcd, shuffled": (_PUBLISHED, "shuffled"),
    "sgcd floor .2": ({**_PUBLISHED, "floor": 0.2}, "own"),
    "direction gate": ({**_PUBLISHED, "direction_gate": True}, "own"),
    "turn sgcd": ({"name": "turn_sgcd"}, "own"),
    "rlsd": ({"name": "rlsd"}, "own"),
    "grsd": ({"name": "grsd"}, "own"),
    "centred gate": ({"name": "centred_gate"}, "own"),
}
"""Methods with a teacher, and the reference that it reads."""
_LIKELY_WRONG = 0.6
"""Below this probability of the right tool a decision is likely wrong: what an ideal teacher without a sign names."""
_TRUTHS: Mapping[str, tuple[float, float, Callable[[Flags, Floats, Flags], Flags]]] = {
    "right sign [1, 2]": (1.0, 2.0, lambda is_right, prob_right, is_success: is_right == is_success),
    "right sign [.2, 1]": (0.2, 1.0, lambda is_right, prob_right, is_success: is_right == is_success),
    "likely wrong [1, 2]": (1.0, 2.0, lambda is_right, prob_right, is_success: prob_right < _LIKELY_WRONG),
    "likely wrong [.2, 1]": (0.2, 1.0, lambda is_right, prob_right, is_success: prob_right < _LIKELY_WRONG),
}
"""Weight elsewhere, weight of chosen decisions, and which are chosen. Nobody knows these; they are controls."""


class DeskRightSign:
    """A method of its own: twice the advantage on decisions that are what the rollout's outcome calls them."""

    low, high = 1.0, 2.0

    def signal(self, inputs: CreditInputs) -> Floats:
        """Right decisions of a success, wrong ones of a failure; by the verdicts of the requests."""
        rollout = inputs.rollout
        weights = np.full(len(rollout.response), self.low, np.float32)
        for (reward, _), turn in zip(read_parts(rollout), rollout.turns, strict=False):
            calls = turn.start + np.flatnonzero(rollout.token_kinds[turn.start : turn.stop] == TokenKind.CALL)
            if len(calls) > 1 and (reward > 0) is (inputs.advantage > 0):
                weights[calls[1]] = self.high
        return weights


class DeskRightSignFloor(DeskRightSign):
    """The same between a fifth and one: all other tokens carry less."""

    low, high = 0.2, 1.0


def weigh_group(group: Group, scored: Sequence[DeskRollout], features: DeskFeatures | None = None) -> TokenAdvantages:
    """The token advantages of a group's rollouts, by name of the weighting; with features also those with a teacher."""
    dealt = advantages([rollout.reward for rollout in group.rollouts]).tolist()
    inputs = [
        CreditInputs(
            one.rollout, advantage, group=group, group_advantages=dealt, logprobs=one.logprobs, entropy=one.entropies
        )
        for one, advantage in zip(scored, dealt, strict=True)
    ]
    weighted = {name: _assign(row, inputs) for name, row in _METHODS.items()}
    for name, (row, reference) in _WITH_TEACHER.items() if features else ():
        read = [
            replace(each, features={OWN_REFERENCE: own} if own else {})
            for each, own in zip(inputs, features[reference] if features else (), strict=True)
        ]
        weighted[name] = _assign(row, read)
    for name, (low, high, choose) in _TRUTHS.items():
        weighted[name] = []
        for one, advantage in zip(scored, dealt, strict=True):
            weights = np.full(len(one.rollout.response), low, np.float32)
            chosen = choose(one.is_right, one.prob_right, np.full(len(one.places), advantage > 0))
            weights[one.places[chosen]] = high
            weighted[name].append((np.float32(advantage) * weights).astype(np.float32))
    return weighted


def _assign(row: Mapping[str, Any], inputs: Sequence[CreditInputs]) -> list[Floats]:
    method = build_method(TypeAdapter[Any](MethodSettings).validate_python(row))
    return [method.assign_credit(each).token_advantage for each in inputs]
