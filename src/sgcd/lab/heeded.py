"""Whether references help: fresh plays of tasks under each of several texts, paired by task and trial."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.lab.guided import play_guided
from sgcd.measure.statistics import clustered, paired
from sgcd.records import Rollout, Task

WITHOUT = "without"
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Heeded:
    """Plays of each task, arm by arm."""

    trials: int
    arms: dict[str, list[list[Rollout]]]

    def success(self, name: str, here: Flags | None = None) -> dict[str, Any]:
        """With its interval; `here` says which tasks count."""
        won = self._won(name, here)
        return clustered(won.tolist(), [self.trials] * len(won)).plain()

    def less(self, name: str, other: str, here: Flags | None = None) -> dict[str, Any]:
        """How much more often one arm succeeds than another, on the same tasks."""
        return paired(self._won(name, here) / self.trials, self._won(other, here) / self.trials).plain()

    def _won(self, name: str, here: Flags | None) -> NDArray[Any]:
        won = np.array([sum(rollout.success for rollout in rollouts) for rollouts in self.arms[name]])
        return won if here is None else won[here]


async def play_arms(
    tasks: Sequence[Task],
    arms: Mapping[str, Sequence[str]],
    trials: int,
    chat: Chat,
    sampler: Sampler,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Heeded:
    """Without a reference and under each arm's texts, one for each task."""
    played: dict[str, list[list[Rollout]]] = {}
    for name, texts in {WITHOUT: [""] * len(tasks), **arms}.items():
        say(f"{len(tasks)} mixed tasks, {trials} trials, reference: {name}")
        played[name] = await play_guided(tasks, texts, trials, chat, sampler, seed)
    return Heeded(trials, played)


async def heeded(
    tasks: Sequence[Task],
    arms: Mapping[str, Sequence[str]],
    own: str,
    trials: int,
    chat: Chat,
    sampler: Sampler,
    seed: int,
) -> dict[str, Any]:
    """Success without a reference and under each arm's texts, less the arm called `own`.

    An arm that lacks the text of a task is measured, and compared, on the others.
    """
    played = await play_arms(tasks, arms, trials, chat, sampler, seed)
    found: dict[str, Any] = {}
    for name in played.arms:
        here = np.array([bool(text) for text in arms.get(name, ["any"] * len(tasks))])
        less = {f"less {other}": played.less(name, other, here) for other in (WITHOUT, own) if other != name}
        found[name] = {"tasks": int(here.sum()), "success": played.success(name, here), **less}
    return found
