"""What a warm start must show before anything is trained from it, on dev: copying, categories, heeding."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.contrast.refer import refer
from sgcd.contrast.write import BuiltIn
from sgcd.lab import words
from sgcd.lab.demonstrate import PERFECT, Script, enact, leak, tokens
from sgcd.lab.guided import play_guided
from sgcd.lab.heeded import WITHOUT, play_arms
from sgcd.lab.settings import LabEnvironment
from sgcd.lab.tasks import tasks_of
from sgcd.measure.statistics import clustered
from sgcd.records import CATEGORIES, Ids, Kind, Rollout, Siblings, Task

TASKS, TRIALS = 200, 8
BUDGET = 30720
ARGUMENT, CATEGORY = 0.9, 0.05
"""The gate: mean probability of every gold argument, sampled success in every category."""


async def measure(
    model: Any, chat: Chat, sampler: Sampler, world: LabEnvironment, tasks: int = TASKS, trials: int = TRIALS
) -> dict[str, Any]:
    """The gate's figures for one warm start, as plain JSON."""
    arguments = gold_arguments(model, chat, tasks_of("dev")[:tasks], world)
    played = tasks_of("dev")[:tasks]
    alone = await play_guided(played, [""] * len(played), trials, chat, sampler, seed=11)
    greedy = await play_guided(played, [""] * len(played), 1, chat, sampler, seed=11, temperature=0.0)
    by_category = {
        category: float(
            np.mean(
                [_rate(rollouts) for task, rollouts in zip(played, alone, strict=True) if task.category == category]
            )
        )
        for category in CATEGORIES
    }
    return {
        "tasks": tasks,
        "trials": trials,
        "arguments": arguments,
        "sampled": _estimate(alone),
        "greedy": float(np.mean([_rate(rollouts) for rollouts in greedy])),
        "categories": by_category,
        "failed_calls": _failed_calls(alone),
        "reference": await heeding(played, alone, trials, chat, sampler),
        "passes": min(arguments.values()) > ARGUMENT and min(by_category.values()) > CATEGORY,
    }


async def heeding(
    played: Sequence[Task], alone: Sequence[Sequence[Rollout]], trials: int, chat: Chat, sampler: Sampler
) -> dict[str, Any]:
    """Success where siblings mix: with the task's reference, without, with the next task's, with a leak."""
    mixed = [
        (task, rollouts)
        for task, rollouts in zip(played, alone, strict=True)
        if len({r.success for r in rollouts}) == 2
    ]
    tasks = [task for task, _ in mixed]
    texts = [await _reference(task, rollouts, chat) for task, rollouts in mixed]
    told = [str(next(r for r in rollouts if r.success).messages[-1]["content"]) for _, rollouts in mixed]
    leaks = [leak(text.rpartition(" </think> ")[2]) for text in told]
    # fresh plays for all arms: the siblings that the reference was written from count for none of them
    arms = {"own": texts, "shuffled": texts[1:] + texts[:1], "leaky": leaks}
    fresh = await play_arms(tasks, arms, trials, chat, sampler, seed=12)
    return {
        "tasks": len(tasks),
        **{name: fresh.success(name) for name in fresh.arms},
        "own - without": fresh.less("own", WITHOUT),
        "own - shuffled": fresh.less("own", "shuffled"),
        "no tool": {
            name: float(np.mean([not r.calls for rollouts in arm for r in rollouts]))
            for name, arm in fresh.arms.items()
        },
    }


async def _reference(task: Task, rollouts: Sequence[Rollout], chat: Chat) -> str:
    """What the built-in writer says of mixed siblings, as training would hear it."""
    referred = await refer(Siblings(task, tuple(rollouts)), chat, BuiltIn(), BUDGET)
    assert referred.reference, referred.cause
    return referred.reference.text


def gold_arguments(model: Any, chat: Chat, tasks: Sequence[Task], world: LabEnvironment) -> dict[str, float]:
    """Mean probability of the right value of every argument, along demonstrations without an error."""
    import torch

    rng = np.random.Generator(np.random.Philox(key=5))
    thoughts = words.thoughts_of(world.chatty, world.thinking)
    found: dict[str, list[float]] = defaultdict(list)
    for task in tasks:
        rollout = tokens(_at_once(task, Script(task, PERFECT, rng, thoughts)), chat)
        ids = np.concatenate([rollout.prompt, rollout.response]).astype(np.int64)
        with torch.inference_mode():
            logp = model(input_ids=torch.from_numpy(ids)[None]).logits[0].float().log_softmax(-1)
        for turn in rollout.turns:
            for at, name in _arguments(rollout.response, rollout.kinds, turn.start, turn.stop, chat):
                position = len(rollout.prompt) + at
                found[name].append(float(logp[position - 1, ids[position]].exp()))
    return {name: float(np.mean(values)) for name, values in sorted(found.items())}


def _at_once(task: Task, script: Script) -> Any:
    """Run a script to its end from code that may itself run inside a loop: the lab's world never waits for anything."""
    coroutine = enact(task, script)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("the lab's world waited for something")


def _arguments(response: Ids, kinds: np.ndarray, start: int, stop: int, chat: Chat) -> list[tuple[int, str]]:
    """Positions of values in a turn's call, and their arguments' names: <call> tool name value ... </call> end."""
    call = [i for i in range(start, stop) if kinds[i] == Kind.CALL]
    return [(i, chat.plain(response[i - 1 : i])) for i in call[3:-2:2]]


def _rate(rollouts: Sequence[Rollout]) -> float:
    return float(np.mean([r.success for r in rollouts]))


def _estimate(groups: Sequence[Sequence[Rollout]]) -> dict[str, Any]:
    return clustered(
        [sum(r.success for r in rollouts) for rollouts in groups], [len(rollouts) for rollouts in groups]
    ).plain()


def _failed_calls(groups: Sequence[Sequence[Rollout]]) -> float:
    calls = [call.failed for rollouts in groups for r in rollouts for call in r.calls]
    return float(np.mean(calls)) if calls else 0.0
