"""Plays held-out lab tasks and keeps the groups whose siblings are mixed, with a reference for each of them."""

from collections.abc import Callable
from dataclasses import dataclass

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.contrast.reference import ReferenceResult, build_reference
from sgcd.contrast.settings import ReferenceSettings
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.credit.settings import SgcdSettings
from sgcd.errors import RecipeError
from sgcd.lab.reference_effect import play_with_references
from sgcd.lab.tasks import generate_tasks
from sgcd.learn.policy.load import Policy
from sgcd.records import Group, Reference

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
    own_text: str
    shuffled_text: str
    """The text of the next group's reference."""
    swapped_text: str
    """The own reference with success and failure exchanged."""
    both_sides: tuple[str, str]
    """The own and the swapped reference, with failures named in both."""


async def collect_lab_groups(study: LabStudy, num_wanted: int) -> tuple[list[GroupWithReferences], int]:
    """The first `num_wanted` held-out tasks with mixed siblings and a reference, and how many tasks were tried."""
    tasks, num_tried = generate_tasks("dev"), 0
    found: list[tuple[Group, ReferenceResult, tuple[str, str]]] = []
    budget = ReferenceSettings().budget
    while len(found) < num_wanted and num_tried < len(tasks):
        chunk = tasks[num_tried : num_tried + NUM_SLOTS // NUM_TRIALS]
        num_tried += len(chunk)
        rollouts_by_task = await play_with_references(
            chunk, [""] * len(chunk), NUM_TRIALS, chat=study.chat, sampler=study.sampler, seed=study.seed
        )
        groups = [Group(task, tuple(rollouts)) for task, rollouts in zip(chunk, rollouts_by_task, strict=True)]
        for group in filter(Group.is_mixed, groups):
            result, both = [
                await build_reference(group, study.chat, writer, budget=budget, with_swapped=True)
                for writer in (BuiltInWriter(), BuiltInWriter(names_failures=True))
            ]
            if result.swapped and both.reference and both.swapped:
                found.append((group, result, (both.reference.text, both.swapped.text)))
        study.on_progress(f"{min(len(found), num_wanted)} of {num_wanted} mixed tasks, {num_tried} tried")
    if len(found) < 2:
        raise RecipeError(
            f"lab truth: on {len(found)} of {num_tried} tasks a reference parts the siblings either way; "
            "expected at least 2"
        )
    found = found[:num_wanted]
    texts = [(_text(result.reference), _text(result.swapped)) for _, result, _ in found]
    next_texts = [own for own, _ in [*texts[1:], texts[0]]]
    return [
        GroupWithReferences(group, result, own, next_text, swapped, both_sides)
        for (group, result, both_sides), (own, swapped), next_text in zip(found, texts, next_texts, strict=True)
    ], num_tried


def _text(reference: Reference | None) -> str:
    return reference.text if reference else ""
