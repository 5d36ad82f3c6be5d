"""Measures a warm start on dev tasks before it is used: copied arguments, success by category, effect of references."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.contrast.insert import write_leaky_text
from sgcd.contrast.reference import build_reference
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.lab import words
from sgcd.lab.demonstrate import (
    ALWAYS_ACTS,
    ALWAYS_REFUSES,
    NOISY,
    PERFECT,
    Script,
    encode_demonstration,
    play_script,
)
from sgcd.lab.reference_effect import WITHOUT_REFERENCE, play_reference_arms, play_with_references
from sgcd.lab.settings import LabSettings
from sgcd.lab.tasks import generate_tasks
from sgcd.measure.statistics import clustered_interval
from sgcd.records import CATEGORIES, Group, Rollout, Task, TokenIds, TokenKind

_NUM_TASKS, _NUM_TRIALS = 200, 8
_REFERENCE_BUDGET = 30720
MIN_ARGUMENT_PROBABILITY, MIN_CATEGORY_SUCCESS = 0.9, 0.05
"""The gate: smallest mean probability of a gold argument, and smallest sampled success in a category. A start must
also beat a policy that acts on every task and one that refuses every task: their success is a category's share."""
SCRIPTS = {"demonstrator": NOISY, "always acts": ALWAYS_ACTS, "always refuses": ALWAYS_REFUSES, "no error": PERFECT}


async def measure_warm_start(
    model: Any,
    chat: Chat,
    sampler: Sampler,
    *,
    world: LabSettings,
    tasks: int = _NUM_TASKS,
    trials: int = _NUM_TRIALS,
) -> dict[str, Any]:
    """The gate's measurements of one warm start, as plain JSON."""
    arguments = gold_argument_probabilities(model, chat, generate_tasks("dev")[:tasks], world)
    dev_tasks = generate_tasks("dev")[:tasks]
    without_reference = [""] * len(dev_tasks)
    rollouts_by_task = await play_with_references(
        dev_tasks, without_reference, trials, chat=chat, sampler=sampler, seed=11
    )
    greedy = await play_with_references(
        dev_tasks, without_reference, 1, chat=chat, sampler=sampler, seed=11, temperature=0.0
    )
    by_category = {
        category: float(
            np.mean(
                [
                    _success_rate(rollouts)
                    for task, rollouts in zip(dev_tasks, rollouts_by_task, strict=True)
                    if task.category == category
                ]
            )
        )
        for category in CATEGORIES
    }
    shares = {name: success_over_tasks(dev_tasks, {c: float(c == name) for c in CATEGORIES}) for name in CATEGORIES}
    return {
        "tasks": tasks,
        "trials": trials,
        "arguments": arguments,
        "sampled": _success_estimate(rollouts_by_task),
        "greedy": float(np.mean([_success_rate(rollouts) for rollouts in greedy])),
        "categories": by_category,
        "failed_calls": _failed_call_share(rollouts_by_task),
        "shares": shares,
        "constant": constant_decisions(dev_tasks, by_category),
        "scripts": {name: await play_scripts(dev_tasks, trials, name) for name in SCRIPTS},
        "reference": await measure_reference_arms(dev_tasks, rollouts_by_task, trials, chat, sampler),
        "passes": min(arguments.values()) > MIN_ARGUMENT_PROBABILITY
        and min(by_category.values()) > MIN_CATEGORY_SUCCESS
        and max(shares["action"], shares["no_action"]) < success_over_tasks(dev_tasks, by_category),
    }


def constant_decisions(tasks: Sequence[Task], by_category: Mapping[str, float]) -> dict[str, float]:
    """Success if the policy acted on (or refused) every request for a change, and did all else as it does."""
    return {
        decision: success_over_tasks(tasks, {**by_category, "action": float(acts), "no_action": float(not acts)})
        for decision, acts in (("always acts", True), ("always refuses", False))
    }


def success_over_tasks(tasks: Sequence[Task], by_category: Mapping[str, float]) -> float:
    return float(np.mean([by_category[task.category] for task in tasks]))


async def play_scripts(tasks: Sequence[Task], trials: int, name: str) -> dict[str, float]:
    """Success of a script of `SCRIPTS` by category, played through the environment and its verifier."""
    rng = np.random.Generator(np.random.Philox(key=7))
    successes: dict[str, list[bool]] = defaultdict(list)
    for task in tasks:
        for _ in range(trials):
            played = await play_script(task, Script(task, SCRIPTS[name], rng))
            successes[task.category].append(played.verdict.success)
    return {category: float(np.mean(successes[category])) for category in CATEGORIES}


async def measure_reference_arms(
    dev_tasks: Sequence[Task], rollouts_by_task: Sequence[Sequence[Rollout]], trials: int, chat: Chat, sampler: Sampler
) -> dict[str, Any]:
    """Success where a reference parts mixed siblings: without it, with it, with the next group's, with a leaky one."""
    mixed = [
        (task, rollouts)
        for task, rollouts in zip(dev_tasks, rollouts_by_task, strict=True)
        if len({r.success for r in rollouts}) == 2
    ]
    written = [(task, rollouts, await _write_reference(task, rollouts, chat)) for task, rollouts in mixed]
    written = [(task, rollouts, text) for task, rollouts, text in written if text]
    tasks, texts = [task for task, _, _ in written], [text for _, _, text in written]
    answers = [str(next(r for r in rollouts if r.success).messages[-1]["content"]) for _, rollouts, _ in written]
    leaky_texts = [write_leaky_text(text.rpartition(" </think> ")[2]) for text in answers]
    # All arms play anew: the siblings that a reference was written from count for no arm.
    arms = {"own": texts, "shuffled": texts[1:] + texts[:1], "leaky": leaky_texts}
    plays = await play_reference_arms(tasks, arms, trials, chat=chat, sampler=sampler, seed=12)
    return {
        "tasks": len(tasks),
        **{name: plays.success_estimate(name) for name in plays.arms},
        "own - without": plays.paired_difference("own", WITHOUT_REFERENCE),
        "own - shuffled": plays.paired_difference("own", "shuffled"),
        "no tool": {
            name: float(np.mean([not r.calls for rollouts in arm for r in rollouts]))
            for name, arm in plays.arms.items()
        },
    }


async def _write_reference(task: Task, rollouts: Sequence[Rollout], chat: Chat) -> str:
    """The text that the built-in writer makes of mixed siblings, as in training; empty when nothing parts them."""
    result = await build_reference(Group(task, tuple(rollouts)), chat, BuiltInWriter(), budget=_REFERENCE_BUDGET)
    return result.reference.text if result.reference else ""


def gold_argument_probabilities(model: Any, chat: Chat, tasks: Sequence[Task], world: LabSettings) -> dict[str, float]:
    """Mean probability of the right value of each argument, over demonstrations without an error."""
    import torch

    rng = np.random.Generator(np.random.Philox(key=5))
    thoughts = words.thought_pools(world.chatty, world.thinking)
    probabilities: dict[str, list[float]] = defaultdict(list)
    for task in tasks:
        rollout = encode_demonstration(_play_synchronously(task, Script(task, PERFECT, rng, thoughts)), chat)
        ids = np.concatenate([rollout.prompt, rollout.response]).astype(np.int64)
        with torch.inference_mode():
            logprobs = model(input_ids=torch.from_numpy(ids)[None]).logits[0].float().log_softmax(-1)
        for turn in rollout.turns:
            for offset, name in _argument_positions(rollout.response, rollout.token_kinds, turn.start, turn.stop, chat):
                position = len(rollout.prompt) + offset
                probabilities[name].append(float(logprobs[position - 1, ids[position]].exp()))
    return {name: float(np.mean(values)) for name, values in sorted(probabilities.items())}


def _play_synchronously(task: Task, script: Script) -> Any:
    """Play a script from code that may run inside an event loop. The lab's world never awaits anything."""
    coroutine = play_script(task, script)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("the lab's world awaited something; it must answer at once")


def _argument_positions(
    response: TokenIds, kinds: np.ndarray, start: int, stop: int, chat: Chat
) -> list[tuple[int, str]]:
    """Positions of the values in a turn's call, with their names. A call reads: <call> tool name value ... </call>."""
    call = [i for i in range(start, stop) if kinds[i] == TokenKind.CALL]
    return [(i, chat.decode(response[i - 1 : i])) for i in call[3:-2:2]]


def _success_rate(rollouts: Sequence[Rollout]) -> float:
    return float(np.mean([r.success for r in rollouts]))


def _success_estimate(groups: Sequence[Sequence[Rollout]]) -> dict[str, Any]:
    return clustered_interval(
        [sum(r.success for r in rollouts) for rollouts in groups], [len(rollouts) for rollouts in groups]
    ).to_json()


def _failed_call_share(groups: Sequence[Sequence[Rollout]]) -> float:
    failures = [call.is_error for rollouts in groups for r in rollouts for call in r.calls]
    return float(np.mean(failures)) if failures else 0.0
