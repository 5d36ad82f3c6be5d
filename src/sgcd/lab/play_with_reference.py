"""Play lab tasks as the teacher: the sampler sees a reference in its prompt, the recorded rollout does not have it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.act.cohort import PlayContext, play_cohort
from sgcd.act.environment import SampledTurn, Sampler, Session, TaskSuite
from sgcd.act.rollout import RolloutSpec
from sgcd.act.settings import Limits
from sgcd.chat import Chat
from sgcd.contrast.insert import encode_reference, insert_reference
from sgcd.lab.world import Airline
from sgcd.records import Rollout, Task, TokenIds
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
        (RolloutSpec(task, trial, derive_seed(seed, "guided", task.id, trial)), text)
        for task, text in zip(tasks, texts, strict=True)
        for trial in range(trials)
    ]
    rollouts: list[Rollout] = []
    for start in range(0, len(plays), sampler.slots):
        chunk = plays[start : start + sampler.slots]
        positions = [await _reference_position(spec, chat) if text else 0 for spec, text in chunk]

        def add_reference(
            index: int,
            session: Session,
            chunk: Sequence[tuple[RolloutSpec, str]] = chunk,
            positions: Sequence[int] = positions,
        ) -> Session:
            text = chunk[index][1]
            return ReferenceSession(session, encode_reference(chat, text), positions[index]) if text else session

        specs = [spec for spec, _ in chunk]
        rollouts += await play_cohort(specs, context, temperature=temperature, wrap_session=add_reference)
    return [rollouts[start : start + trials] for start in range(0, len(rollouts), trials)]


def lab_context(chat: Chat, sampler: Sampler) -> PlayContext:
    """Plays in the lab's world with the lab's limits; the tasks are chosen by the caller."""
    return PlayContext(task_suite=TaskSuite(Airline, {}), chat=chat, sampler=sampler, limits=LAB_LIMITS)


async def _reference_position(spec: RolloutSpec, chat: Chat) -> int:
    """Where a reference goes in the prompt of a task."""
    initial = await Airline().open(spec.task, spec.seed)
    return chat.encode_prompt(initial.messages, initial.tools, initial.reference_message).reference_position
