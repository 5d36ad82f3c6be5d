"""Plays held-out lab tasks and keeps the groups whose siblings are mixed, with a reference for each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.contrast.reference import ReferenceResult, build_reference
from sgcd.contrast.settings import ReferenceSettings
from sgcd.contrast.writers.moves import MovesWriter
from sgcd.credit.settings import SgcdSettings
from sgcd.errors import RecipeError
from sgcd.lab.reference_effect import play_with_references
from sgcd.lab.tasks import generate_tasks
from sgcd.learn.policy.load import Policy
from sgcd.records import Group

NUM_TRIALS = 8
"""Siblings of a task, and trials of it under each reference."""
NUM_SLOTS = 256
ProgressCallback = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabStudy:
    """A policy in the lab and a method to measure."""

    policy: Policy
    sampler: Sampler
    settings: SgcdSettings
    seed: int
    on_progress: ProgressCallback

    @property
    def chat(self) -> Chat:
        return self.policy.chat


@dataclass(frozen=True, slots=True)
class GroupWithReferences:
    """Mixed siblings of one task, their own reference, and the reference of the next group."""

    siblings: Group
    reference_result: ReferenceResult
    shuffled_text: str
    """The text of the next group's reference."""

    @property
    def own_text(self) -> str:
        return get_reference_text(self.reference_result)


async def collect_lab_groups(study: LabStudy, num_wanted: int) -> tuple[list[GroupWithReferences], int]:
    """The first `num_wanted` held-out tasks with mixed siblings, and the number of tasks that were tried."""
    tasks, mixed, num_tried = generate_tasks("dev"), list[Group](), 0
    while len(mixed) < num_wanted and num_tried < len(tasks):
        chunk = tasks[num_tried : num_tried + NUM_SLOTS // NUM_TRIALS]
        num_tried += len(chunk)
        rollouts_by_task = await play_with_references(
            chunk, [""] * len(chunk), NUM_TRIALS, chat=study.chat, sampler=study.sampler, seed=study.seed
        )
        groups = [Group(task, tuple(rollouts)) for task, rollouts in zip(chunk, rollouts_by_task, strict=True)]
        mixed += [group for group in groups if group.is_mixed()]
        study.on_progress(f"{min(len(mixed), num_wanted)} of {num_wanted} mixed tasks, {num_tried} tried")
    if len(mixed) < 2:
        raise RecipeError(
            f"lab truth: siblings are mixed on {len(mixed)} of {num_tried} held-out tasks; expected at least 2"
        )
    return await _with_references(mixed[:num_wanted], study.chat), num_tried


async def _with_references(groups: Sequence[Group], chat: Chat) -> list[GroupWithReferences]:
    budget = ReferenceSettings().budget
    results = [await build_reference(group, chat, MovesWriter(), budget=budget) for group in groups]
    texts = [get_reference_text(result) for result in results]
    columns = zip(groups, results, texts[1:] + texts[:1], strict=True)
    return [GroupWithReferences(group, result, next_text) for group, result, next_text in columns]


def get_reference_text(reference_result: ReferenceResult) -> str:
    """The text of a reference. The built-in writer finds one for all mixed siblings that fit its large budget."""
    if reference_result.reference is None:
        raise RecipeError(f"lab truth: task {reference_result.task} has no reference: {reference_result.cause}")
    return reference_result.reference.text
