"""Play scripted attempts at a task of a plain class, as siblings without tokens."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sgcd.act.endpoint_player import EndpointPlayer, play_endpoint
from sgcd.act.environments.own import OwnEnvironment
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.settings import Limits, OwnEnvironmentSettings
from sgcd.act.tools import build_tools
from sgcd.endpoint.client import Endpoint
from sgcd.endpoint.completion import Completion, ToolCall
from sgcd.records import Group, Rollout, Task, Verdict

Turn = str | tuple[str, dict[str, Any]]
"""A final answer, or a call: a tool and its arguments."""


@dataclass
class ScriptedEndpoint:
    """A model that gives its completions in order."""

    turns: list[Turn]

    async def complete(self, *args: Any, **options: Any) -> Completion:
        turn = self.turns.pop(0)
        if isinstance(turn, str):
            return Completion(turn)
        return Completion("", "tool_calls", (ToolCall("1", turn[0], json.dumps(turn[1])),))


def play(cls: type[Any], row: dict[str, Any], attempts: Sequence[Sequence[Turn]], *, max_turns: int = 8) -> Group:
    """One rollout for each attempt; the class, or the row's verifier, judges it."""
    config = OwnEnvironmentSettings.model_validate({"name": "own", "class": "x:X", "tasks": "none"})
    task, tools = Task("t1", "action", row), build_tools(cls)

    async def play_one(sibling: int, attempt: Sequence[Turn]) -> Rollout:
        player = EndpointPlayer(cast(Endpoint, ScriptedEndpoint([*attempt])), None)
        environment = OwnEnvironment(cls, tools, config)
        recorder = RolloutRecorder(task, sibling, sibling)
        return await play_endpoint(recorder, environment, player, limits=Limits(turns=max_turns))

    async def play_all() -> list[Rollout]:
        return [await play_one(sibling, attempt) for sibling, attempt in enumerate(attempts)]

    rollouts = asyncio.run(play_all())
    assert not any(rollout.broken for rollout in rollouts), [rollout.broken for rollout in rollouts]
    return Group(task, tuple(rollouts))


def exchange(group: Group) -> Group:
    """The group with successes and failures exchanged."""
    verdicts = [
        Verdict(1 - rollout.reward, not rollout.success, public_facts=rollout.verdict.public_facts)
        for rollout in group.rollouts
        if rollout.verdict
    ]
    rollouts = [replace(one, verdict=verdict) for one, verdict in zip(group.rollouts, verdicts, strict=True)]
    return replace(group, rollouts=tuple(rollouts))
