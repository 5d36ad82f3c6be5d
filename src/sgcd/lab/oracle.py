"""What the lab knows of the truth: a reference from a play without an error, and weights on the turns that decide.

Both are controls. No real environment has them: `reference.writer: {name: oracle}` and
`method: {name: own, class: "sgcd.lab.oracle:OracleWeights"}`.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.credit.methods import CreditInputs
from sgcd.lab.demonstrate import PERFECT, Demonstration, Script, call_text, encode_demonstration, play_script
from sgcd.lab.long_desk.demonstrate import play_desk_tools
from sgcd.lab.long_desk.world import DESK_TASK_PREFIX, desk_requests
from sgcd.records import Floats, Group, Rollout, Task, Turn
from sgcd.seeds import derive_seed

RIGHT_WEIGHT = 2.0
"""Of a turn that decided as its rollout's verdict says; all others have weight one."""


class OracleReferenceBuilder(ReferenceBuilder):
    """Compares a group's failures with a play without an error instead of with its successes."""

    async def build(
        self, group: Group, only_siblings: Collection[int] | None = None, *, with_swapped: bool = False
    ) -> ReferenceResult:
        failures = [
            rollout
            for rollout in group.rollouts
            if not rollout.success and (only_siblings is None or rollout.sibling in only_siblings)
        ]
        played = await _play_without_error(group.task)
        perfect = replace(
            encode_demonstration(played, self.chat), sibling=1 + max(rollout.sibling for rollout in group.rollouts)
        )
        return await super().build(replace(group, rollouts=(*failures, perfect)), with_swapped=with_swapped)


class OracleWeights:
    """A method of its own: twice the advantage on turns that decide as the verdict says, by the world's own rules."""

    def signal(self, inputs: CreditInputs) -> Floats:
        """Right turns of a rollout with a positive advantage, wrong turns of one with a negative advantage."""
        assert inputs.group is not None
        weight = np.ones(len(inputs.rollout.response), np.float32)
        for turn, is_right in zip(inputs.rollout.turns, judge_turns(inputs.group.task, inputs.rollout), strict=True):
            if is_right is (inputs.advantage > 0):
                weight[turn.start : turn.stop] = RIGHT_WEIGHT
        return weight


def judge_turns(task: Task, rollout: Rollout) -> list[bool]:
    """Whether each turn did what a script without an error does in its place."""
    script, judged = _perfect_script(task), list[bool]()
    for turn in rollout.turns:
        if script.num_answered == len(task.row["requests"]):
            judged.append(False)
            continue
        num_answered, expected = script.num_answered, script.next_turn()
        judged.append(_says(turn) == expected)
        script.num_answered = num_answered + (not turn.calls)
        for call in turn.calls:
            script.apply_call(call)
    return judged


async def _play_without_error(task: Task) -> Demonstration:
    if task.id.startswith(DESK_TASK_PREFIX):
        requests = desk_requests(task)
        return play_desk_tools(task, requests, [request.right_tool for request in requests])
    return await play_script(task, _perfect_script(task))


def _perfect_script(task: Task) -> Script:
    return Script(task, PERFECT, np.random.default_rng(derive_seed("oracle", task.id)))


def _says(turn: Turn) -> str:
    """A turn in the words of a script: its first call, or its answer, without thinking."""
    if not turn.calls:
        return turn.text or ""
    call = turn.calls[0]
    return call_text(call.name, *map(str, call.arguments.values()))
