"""By turn: each part of a rollout has the advantage of its own verdict, where an environment gives verdicts by turn.

    A_kp   = (r_kp - mean of r_p over siblings) / (sample std of r_p over siblings + 1e-6)      part p of rollout k
    pull_t = coefficient (thinking^[t is thinking] A_kp - A_k), so that with 1 the token's advantage is that of its part

A part is a request, a sub-goal, a turn: some turns with a verdict of their own. The environment lists the parts that
ended in `Verdict.facts["parts"]`, in order, as {"reward": 1.0, "turns": 1}: the reward, and how many turns it replied
to belong to the part. A turn that it never saw, because its call could not be read, belongs to the part that it was an
attempt at. A part that a rollout did not end has reward 0. Tokens after the last part of all siblings keep A_k.

The assumption: what is done in a part changes that part's reward alone. Nothing is credited for what it does to later
parts. Under `control: permuted` a rollout has the rewards of the sibling whose verdict it was dealt. The source is this
project. Defaults: coefficient 1, no mask on thinking.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.advantage import advantages
from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod, signal_pull
from sgcd.credit.segments import Doubles
from sgcd.credit.signal_settings import ByTurnSettings
from sgcd.credit_records import Signal
from sgcd.errors import MethodFault
from sgcd.records import Rollout, TokenKind

PARTS_FACT = "parts"
"""The fact of a verdict that lists its parts."""


class ByTurn(StatelessMethod):
    needs = None
    facts = MethodFacts(
        "verdicts of parts of a rollout", "this project", "float64 formula, parts by hand", keeps_sign=False
    )

    def __init__(self, settings: ByTurnSettings) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Refused where a sibling's verdict has no parts."""
        settings, group = self.settings, inputs.group
        if not settings.coefficient or group is None:
            return signal_pull(inputs, None)
        rewards = part_rewards(group.rollouts)
        if inputs.verdict_order:
            rewards = rewards[list(inputs.verdict_order)]
        own = [rollout.sibling for rollout in group.rollouts].index(inputs.rollout.sibling)
        by_part = np.array([advantages(column)[own] for column in rewards.T])
        places = part_indices(inputs.rollout)
        value = np.append(by_part, inputs.advantage)[np.minimum(places, len(by_part))]
        is_thinking = inputs.rollout.token_kinds == TokenKind.THINKING
        value = np.where(is_thinking, settings.thinking, 1.0) * value
        return signal_pull(inputs, settings.coefficient * (value - inputs.advantage))


def part_rewards(rollouts: Sequence[Rollout]) -> Doubles:
    """[rollouts, parts]: the reward of each part; 0 where a rollout did not end the part."""
    rows = [[reward for reward, _ in read_parts(rollout)] for rollout in rollouts]
    width = max(map(len, rows), default=0)
    return np.array([row + [0.0] * (width - len(row)) for row in rows]).reshape(len(rows), width)


def part_indices(rollout: Rollout) -> NDArray[np.int64]:
    """The part that each token of a response belongs to."""
    indices = np.zeros(len(rollout.response), np.int64)
    left = [turns for _, turns in read_parts(rollout)]
    part = 0
    for turn in rollout.turns:
        while part < len(left) and not left[part]:
            part += 1
        indices[turn.start :] = part
        if part < len(left) and not turn.malformed:
            left[part] -= 1
    return indices


def read_parts(rollout: Rollout) -> list[tuple[float, int]]:
    """The reward and the number of turns of each part that ended."""
    parts: Any = rollout.verdict.facts.get(PARTS_FACT) if rollout.verdict else None
    expected = 'expected Verdict.facts["parts"] as [{"reward": 1.0, "turns": 1}, ...]'
    if parts is None:
        raise MethodFault(
            f"method.by_turn: rollout {rollout.name}: its environment gives no verdict by turn, {expected}; "
            "take another method, or let the environment list its parts"
        )
    try:
        return [_read_part(part) for part in parts]
    except (TypeError, ValueError, KeyError) as problem:
        raise MethodFault(f"method.by_turn: rollout {rollout.name}: {expected}, got {parts!r}") from problem


def _read_part(part: Any) -> tuple[float, int]:
    values = cast(Mapping[str, Any], part)
    reward, turns = float(values["reward"]), values["turns"]
    if not np.isfinite(reward) or not isinstance(turns, int) or turns < 0:
        raise ValueError
    return reward, turns
