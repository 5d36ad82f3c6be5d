"""Turn values: what siblings achieved who took the same action in the same state, less what all achieved from there.

    V_s    = mean of A over all turns of the group that start from state s
    Q_sa   = mean of A over those of them that act as a
    D_k    = Q_sa - V_s of turn k; the rollout's A_k where no sibling starts a turn from its state
    pull_t = coefficient (thinking^[t is thinking] D_k - A_k), so that with 1 the token's advantage is D_k

A is GRPO's advantage. A state is the text of what the environment said last, as in GiGPO (2505.10978), whose turns keep
their own rollout's return; an action is a turn's calls, or its text where it calls nothing. So a turn that all siblings
take alike has no advantage, and where they part, what else went wrong in each is averaged out. No teacher reads
anything. The assumption: siblings that hear the same are in the same state. Verdicts that are dealt by chance are
independent of the actions, so D has mean zero under `control: permuted`. The source is this project. Defaults:
coefficient 1, no mask on thinking.
"""

import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod, signal_pull
from sgcd.credit.methods.pull.gigpo import turn_states
from sgcd.credit.segments import turn_indices
from sgcd.credit.signal_settings import TurnValuesSettings
from sgcd.credit_records import Signal
from sgcd.records import Group, TokenKind, Turn


class TurnValues(StatelessMethod):
    needs = None
    facts = MethodFacts(
        "siblings' outcomes by state and action", "this project", "float64 formula, turns by hand", keeps_sign=False
    )

    def __init__(self, settings: TurnValuesSettings) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No pull without siblings."""
        settings, group = self.settings, inputs.group
        if not settings.coefficient or group is None:
            return signal_pull(inputs, None)
        own = [rollout.sibling for rollout in group.rollouts].index(inputs.rollout.sibling)
        values = [*turn_values(group, inputs.group_advantages)[own], inputs.advantage]
        value = np.array(values)[turn_indices(inputs.rollout)]
        is_thinking = inputs.rollout.token_kinds == TokenKind.THINKING
        value = np.where(is_thinking, settings.thinking, 1.0) * value
        return signal_pull(inputs, settings.coefficient * (value - inputs.advantage))


def turn_values(group: Group, advantages: Sequence[float]) -> list[list[float]]:
    """D of each turn, by rollout of the group."""
    places = [
        list(zip(turn_states(rollout), map(turn_action, rollout.turns), strict=True)) for rollout in group.rollouts
    ]
    by_action, in_state = defaultdict[tuple[str, str], list[float]](list), defaultdict[str, list[float]](list)
    visitors = defaultdict[str, set[int]](set)
    for rollout, (turns, advantage) in enumerate(zip(places, advantages, strict=True)):
        for state, action in turns:
            by_action[state, action].append(advantage)
            in_state[state].append(advantage)
            visitors[state].add(rollout)

    def value(state: str, action: str, advantage: float) -> float:
        if len(visitors[state]) < 2:
            return advantage
        return float(np.mean(by_action[state, action]) - np.mean(in_state[state]))

    return [[value(*turn, advantage) for turn in turns] for turns, advantage in zip(places, advantages, strict=True)]


def turn_action(turn: Turn) -> str:
    """A turn's calls, or its text where it has none that could be read."""
    calls = [[call.name, call.arguments] for call in turn.calls]
    return json.dumps(calls or [turn.text, turn.malformed], sort_keys=True, default=str)
