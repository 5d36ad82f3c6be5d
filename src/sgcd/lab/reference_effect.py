"""Plays lab tasks with references in the prompt, and measures whether they help."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import SampledTurn, Sampler, Session, TaskSuite
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.settings import Limits
from sgcd.act.siblings import PlayContext, play_cohort
from sgcd.chat import Chat
from sgcd.contrast.insert import encode_reference, insert_reference
from sgcd.lab.world import Airline
from sgcd.measure.statistics import clustered_interval, paired_interval
from sgcd.records import Flags, Rollout, Task, TokenIds
from sgcd.seeds import derive_seed

LAB_LIMITS = Limits(turns=12, tokens=640)


@dataclass(slots=True)
class ReferenceSession:
    """A session that inserts a reference into its first ids, the prompt."""

    inner: Session
    reference_ids: TokenIds
    reference_position: int
    has_started: bool = False

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        prompt_ids = (
            new_ids if self.has_started else insert_reference(new_ids, self.reference_position, self.reference_ids)
        )
        self.has_started = True
        return await self.inner.sample(prompt_ids, max_new_tokens)

    def close(self) -> None:
        self.inner.close()


async def play_with_references(
    tasks: Sequence[Task],
    texts: Sequence[str],
    trials: int,
    *,
    chat: Chat,
    sampler: Sampler,
    seed: int,
    temperature: float = 1.0,
) -> list[list[Rollout]]:
    """`trials` rollouts of each task, with its text as the reference; an empty text means no reference.

    Seeds depend on task and trial alone: trials with and without a reference are paired.
    """
    context = lab_context(chat, sampler)
    plays = [
        (RolloutRecorder(task, trial, derive_seed(seed, "guided", task.id, trial)), text)
        for task, text in zip(tasks, texts, strict=True)
        for trial in range(trials)
    ]
    rollouts: list[Rollout] = []
    for start in range(0, len(plays), sampler.slots):
        chunk = plays[start : start + sampler.slots]
        positions = [await _reference_position(recorder, chat) if text else 0 for recorder, text in chunk]

        def add_reference(
            index: int,
            session: Session,
            chunk: Sequence[tuple[RolloutRecorder, str]] = chunk,
            positions: Sequence[int] = positions,
        ) -> Session:
            text = chunk[index][1]
            return ReferenceSession(session, encode_reference(chat, text), positions[index]) if text else session

        recorders = [recorder for recorder, _ in chunk]
        rollouts += await play_cohort(recorders, context, temperature=temperature, wrap_session=add_reference)
    return [rollouts[start : start + trials] for start in range(0, len(rollouts), trials)]


def lab_context(chat: Chat, sampler: Sampler) -> PlayContext:
    """Plays in the lab's world with the lab's limits; the tasks are chosen by the caller."""
    return PlayContext(task_suite=TaskSuite(Airline, {}), chat=chat, sampler=sampler, limits=LAB_LIMITS)


async def _reference_position(recorder: RolloutRecorder, chat: Chat) -> int:
    """Where a reference goes in the prompt of a task."""
    initial = await Airline().open(recorder.task, recorder.seed)
    return chat.encode_prompt(initial.messages, initial.tools).reference_position


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
        return paired_interval(
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
