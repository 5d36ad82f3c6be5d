"""GiGPO (2505.10978): a second advantage, over the turns of siblings that start from the same state.

    R_k = discount^(K - 1 - k) r          return of turn k of K, the reward coming at the end
    B_s = mean of R over all turns of the group that start from state s
    pull_t = coefficient (R_k - B_s) [/ std of R in s + 1e-6]

A state is the text of what the environment said last; all first turns start from one. A state that was seen once pulls
nothing. Defaults are published: coefficient 1, discount .95, and no division as in the authors' default mode. Under
`control: permuted` r is the reward that was dealt with the advantage.
"""

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod, signal_pull
from sgcd.credit.segments import turn_indices
from sgcd.credit.signal_settings import GigpoSettings
from sgcd.credit_records import Signal
from sgcd.records import Rollout


class Gigpo(StatelessMethod):
    needs = None
    facts = MethodFacts(
        "siblings' returns from the same state",
        "2505.10978",
        "step_norm_reward of verl-agent, as in ZJU-REAL/SDAR",
        keeps_sign=False,
    )

    def __init__(self, settings: GigpoSettings) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No pull where no state was seen twice."""
        settings = self.settings
        if not settings.coefficient or inputs.group is None:
            return signal_pull(inputs, None)
        returns_by_state: dict[str, list[float]] = {}
        own_returns: list[float] = []
        for rollout, reward in zip(inputs.group.rollouts, inputs.group_rewards, strict=True):
            returns = discounted_returns(len(rollout.turns), reward, settings.discount)
            for state, value in zip(turn_states(rollout), returns, strict=True):
                returns_by_state.setdefault(state, []).append(value)
            if rollout.sibling == inputs.rollout.sibling:
                own_returns = returns
        advantages = [
            _state_advantage(value, returns_by_state[state], settings.scale_by_std)
            for state, value in zip(turn_states(inputs.rollout), own_returns, strict=True)
        ]
        by_turn = settings.coefficient * np.append(advantages, 0.0)
        return signal_pull(inputs, by_turn[turn_indices(inputs.rollout)])


def turn_states(rollout: Rollout) -> list[str]:
    """What was said since the turn before, for each turn; the first has an empty state."""
    places = [index for index, message in enumerate(rollout.messages) if message["role"] == "assistant"]
    places = places[-len(rollout.turns) :] if rollout.turns else []
    between = [rollout.messages[before + 1 : place] for before, place in pairwise(places)]
    texts = [json.dumps([[message["role"], message.get("content")] for message in messages]) for messages in between]
    return ["", *texts][: len(rollout.turns)]


def discounted_returns(num_turns: int, reward: float, discount: float) -> list[float]:
    """Of each turn, the reward coming after the last one."""
    return [reward * discount**later for later in reversed(range(num_turns))]


def _state_advantage(value: float, returns: Sequence[float], scale_by_std: bool) -> float:
    if len(returns) < 2:
        return 0.0
    return float((value - np.mean(returns)) / (np.std(returns, ddof=1) + 1e-6 if scale_by_std else 1.0))
