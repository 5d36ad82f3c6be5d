"""Better turns imitate the teacher (after UCOB, 2606.29502): the one with the reference teaches the one without it.

    g_k = R_k - mean of R over the siblings' turns from the same state,   R_k = discount^(K - 1 - k) r
    w_t = min(2, g_k / scale), 0 unless g_k > margin;   times call_weight on the tokens of a call
    L = L_GRPO + coefficient sum_t w_t sigmoid(sharpness (log q(y_t) - log p(y_t))) D(p_t || q_t) / tokens

From the authors' code are the margin, the weight by the difference in returns, its cap, the gate and all defaults.
There rollouts with and without a skill are played, and whichever branch did better from a state teaches the other, in
both directions, beside GiGPO's advantage. Here all rollouts are played without a reference, so only one direction is
left: the turn that did better than its siblings' is moved to what the policy says of it with the reference, beside
GRPO's advantage. The outcomes are the teacher's top K, the observed token and the tail, where theirs are scaled to one.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit.methods.imitate import signal_imitation
from sgcd.credit.methods.pull.gigpo import discounted_returns, turn_states
from sgcd.credit.segments import Doubles, turn_indices
from sgcd.credit.signal_settings import UcobSettings
from sgcd.credit_records import OWN_REFERENCE, Signal
from sgcd.records import TokenKind

_MAX_WEIGHT = 2.0


class Ucob(StatelessMethod):
    facts = MethodFacts(
        "gated divergence, with a gradient, in better turns",
        "after 2606.29502, one of two directions",
        "float64 formula; autograd in float64",
        teacher="policy with the reference",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: UcobSettings) -> None:
        self.settings = settings
        imitated = OWN_REFERENCE if settings.coefficient > 0 else None
        self.needs = Needs(settings.k, settings.divergence, imitated=imitated, can_change_weights=False)

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No imitation without features, nor where no turn did better than its siblings'."""
        settings, features = self.settings, inputs.reference_features
        if features is None or inputs.group is None:
            return signal_imitation(inputs, OWN_REFERENCE, settings)
        gains = self._turn_gains(inputs)
        by_turn = np.where(gains > settings.margin, np.minimum(_MAX_WEIGHT, gains / settings.scale), 0.0)
        is_call = inputs.rollout.token_kinds == TokenKind.CALL
        weight = np.append(by_turn, 0.0)[turn_indices(inputs.rollout)] * np.where(is_call, settings.call_weight, 1.0)
        slope = np.clip(settings.sharpness * features.teacher_logprob_gap.astype(np.float64), -700, 700)
        weight = np.where(np.isfinite(slope), weight / (1 + np.exp(-slope)), 0.0)
        return signal_imitation(inputs, OWN_REFERENCE, settings, weight=weight)

    def _turn_gains(self, inputs: CreditInputs) -> Doubles:
        """g of each turn; 0 where no sibling was in its state."""
        assert inputs.group is not None
        others: dict[str, list[float]] = {}
        own: list[float] = []
        for rollout, reward in zip(inputs.group.rollouts, inputs.group_rewards, strict=True):
            returns = discounted_returns(len(rollout.turns), reward, self.settings.discount)
            if rollout.sibling == inputs.rollout.sibling:
                own = returns
                continue
            for state, value in zip(turn_states(rollout), returns, strict=True):
                others.setdefault(state, []).append(value)
        states = turn_states(inputs.rollout)
        gains = [value - np.mean(others.get(state, [value])) for state, value in zip(states, own, strict=True)]
        return np.array(gains, dtype=np.float64)
