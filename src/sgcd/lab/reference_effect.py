"""Measures whether references help: fresh plays of the same tasks under several texts, paired by task and trial."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.lab.play_with_reference import play_with_references
from sgcd.measure.statistics import clustered_interval, paired_bootstrap
from sgcd.records import Flags, Rollout, Task

WITHOUT_REFERENCE = "without"


@dataclass(frozen=True, slots=True)
class ArmPlays:
    """The rollouts of each task, by arm."""

    num_trials: int
    arms: dict[str, list[list[Rollout]]]

    def success_estimate(self, name: str, task_mask: Flags | None = None) -> dict[str, Any]:
        """The arm's success rate with its interval, over the tasks of `task_mask`."""
        successes = self._count_successes(name, task_mask)
        return clustered_interval(successes.tolist(), [self.num_trials] * len(successes)).to_json()

    def paired_difference(self, name: str, baseline: str, task_mask: Flags | None = None) -> dict[str, Any]:
        """Success of one arm less success of another, on the same tasks."""
        return paired_bootstrap(
            self._count_successes(name, task_mask) / self.num_trials,
            self._count_successes(baseline, task_mask) / self.num_trials,
        ).to_json()

    def _count_successes(self, name: str, task_mask: Flags | None) -> NDArray[Any]:
        successes = np.array([sum(rollout.success for rollout in rollouts) for rollouts in self.arms[name]])
        return successes if task_mask is None else successes[task_mask]


async def play_reference_arms(
    tasks: Sequence[Task],
    arms: Mapping[str, Sequence[str]],
    trials: int,
    *,
    chat: Chat,
    sampler: Sampler,
    seed: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> ArmPlays:
    """Play all tasks without a reference, then under each arm's texts, one text per task."""
    played: dict[str, list[list[Rollout]]] = {}
    for name, texts in {WITHOUT_REFERENCE: [""] * len(tasks), **arms}.items():
        on_progress(f"{len(tasks)} mixed tasks, {trials} trials, reference: {name}")
        played[name] = await play_with_references(tasks, texts, trials, chat=chat, sampler=sampler, seed=seed)
    return ArmPlays(trials, played)


async def compare_reference_arms(
    tasks: Sequence[Task],
    arms: Mapping[str, Sequence[str]],
    own_arm: str,
    *,
    trials: int,
    chat: Chat,
    sampler: Sampler,
    seed: int,
) -> dict[str, Any]:
    """Success of each arm, and its difference from the plays without a reference and from `own_arm`.

    An arm without a text for some task is measured and compared on the other tasks.
    """
    played = await play_reference_arms(tasks, arms, trials, chat=chat, sampler=sampler, seed=seed)
    results: dict[str, Any] = {}
    for name in played.arms:
        has_text = np.array([bool(text) for text in arms.get(name, ["any"] * len(tasks))])
        differences = {
            f"less {baseline}": played.paired_difference(name, baseline, has_text)
            for baseline in (WITHOUT_REFERENCE, own_arm)
            if baseline != name
        }
        results[name] = {
            "tasks": int(has_text.sum()),
            "success": played.success_estimate(name, has_text),
            **differences,
        }
    return results
