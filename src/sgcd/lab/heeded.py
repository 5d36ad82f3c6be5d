"""Whether references help: fresh plays of tasks under each of several texts, paired by task and trial."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.lab.guided import play_guided
from sgcd.measure.statistics import clustered, paired
from sgcd.records import Task

WITHOUT = "without"


async def heeded(
    tasks: Sequence[Task],
    arms: Mapping[str, Sequence[str]],
    own: str,
    trials: int,
    chat: Chat,
    sampler: Sampler,
    seed: int,
) -> dict[str, Any]:
    """Success without a reference and under each arm's texts (one for each task), less the arm called `own`.

    An arm that lacks the text of a task is measured, and compared, on the others.
    """
    wins: dict[str, np.ndarray[Any, Any]] = {}
    for name, texts in {WITHOUT: [""] * len(tasks), **arms}.items():
        played = await play_guided(tasks, texts, trials, chat, sampler, seed)
        wins[name] = np.array([sum(rollout.success for rollout in rollouts) for rollouts in played])
    found: dict[str, Any] = {}
    for name, won in wins.items():
        here = np.array([bool(text) for text in arms.get(name, ["any"] * len(tasks))])
        found[name] = {
            "tasks": int(here.sum()),
            "success": clustered(won[here].tolist(), [trials] * int(here.sum())).plain(),
        }
        for other in {WITHOUT, own} - {name}:
            found[name][f"less {other}"] = paired(won[here] / trials, wins[other][here] / trials).plain()
    return found
