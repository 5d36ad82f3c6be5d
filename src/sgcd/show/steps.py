"""Choose the steps and tasks that fit on the page, and decode their tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from sgcd.chat.words import TOKENIZER_FOLDER, WORDS_FILE, load_words
from sgcd.credit_records import CreditRecord
from sgcd.errors import DamageError, FolderError
from sgcd.records import Group, TokenIds
from sgcd.show.escape_text import escape_text
from sgcd.show.group_columns import TaskSection, TokenDecoder, build_task_section
from sgcd.show.token_classes import count_shown_tokens
from sgcd.storage.atomic import Row
from sgcd.storage.manifest import find_folder_damage, is_light_file
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.record_files import StoredGroup
from sgcd.storage.run_folder import RunFolder

_T = TypeVar("_T")
_DEFAULT_NUM_STEPS = 4
"""Steps on a page when the user names none."""
MAX_PAGE_TOKENS = 40_000
"""Tokens on one page, at most; the first task of a step is always shown."""


@dataclass(slots=True)
class StepSection:
    """One step on the page."""

    step: int
    row: StepMetrics | None
    tasks: list[TaskSection] = field(default_factory=list[TaskSection])
    num_left_out: int = 0
    """Tasks that the step learned from but that do not fit on the page."""
    unused_tasks: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Tasks that the step did not learn from, by their outcome."""
    is_unused_shown: bool = False
    """The step learned from nothing; what is shown is one of its other tasks."""
    remark: str = ""

    @property
    def opened(self) -> str:
        """The task that is open at first: the one with the most raised tokens."""
        return max(self.tasks, key=lambda task: task.num_raised).task if self.tasks else ""

    @property
    def num_unit_weights(self) -> int:
        """Rollouts on the page whose weights are all one."""
        return sum(len(column.siblings) for task in self.tasks for column in task.columns if column.has_unit_weights)

    @property
    def num_weighted(self) -> int:
        """Rollouts on the page with credit on record."""
        return sum(
            len(column.siblings) for task in self.tasks for column in task.columns if column.mean_weight is not None
        )


def build_step_sections(
    folder: RunFolder,
    metrics: Sequence[StepMetrics],
    steps: Sequence[int],
    *,
    decode_tokens: TokenDecoder,
    damage: list[str],
) -> tuple[list[StepSection], dict[str, Any], dict[str, float]]:
    """Build the chosen steps, the numbers of their tokens, and the bounds of the colours.

    What is damaged is left out of its step, and appended to `damage`.
    """
    rows = {row.step: row for row in metrics}
    chosen_steps = sorted(set(steps)) or pick_evenly(folder.steps_with_rollouts(), _DEFAULT_NUM_STEPS)
    groups = {step: read_or(list[StoredGroup](), folder.read_rollouts, step, damage=damage) for step in chosen_steps}
    credit_by_step = {step: read_or({}, partial(read_credit, folder), step, damage=damage) for step in chosen_steps}
    step_credits = [entry.credit for step_records in credit_by_step.values() for entry in step_records.values()]
    bounds = {
        "advantage": max((float(np.abs(entry.token_advantage).max(initial=0)) for entry in step_credits), default=0.0),
        "cap": max((entry.cap for entry in step_credits), default=1.0),
        "floor": min((entry.floor for entry in step_credits), default=1.0),
    }
    sections: list[StepSection] = []
    numbers: dict[str, Any] = {}
    for step in chosen_steps:
        sections.append(StepSection(step, rows.get(step)))
        unused_groups = [group.group for group in groups[step] if not group.is_kept]
        sections[-1].unused_tasks = describe_unused_groups(unused_groups)
        kept_groups = [group.group for group in groups[step] if group.is_kept]
        if kept_groups and not credit_by_step[step]:
            sections[-1].remark = "no credit of this step is on record"
        references = read_or(list[Row](), folder.read_references, step, damage=damage)
        if not groups[step]:
            sections[-1].remark = "the rollouts of this step are damaged, see Health"
        sections[-1].is_unused_shown = not kept_groups and bool(unused_groups)
        shown_groups = kept_groups or unused_groups[:1]
        tokens_left = MAX_PAGE_TOKENS // len(chosen_steps)
        for index, shown_group in enumerate(shown_groups):
            tokens_left -= count_shown_tokens(shown_group)
            if index and tokens_left < 0:
                sections[-1].num_left_out = len(shown_groups) - index
                break
            key = f"{len(sections)}.{index}"
            task, task_numbers = build_task_section(
                key,
                shown_group,
                credit_by_step[step],
                references=references,
                decode_tokens=decode_tokens,
                max_advantage=bounds["advantage"],
            )
            sections[-1].tasks.append(task)
            numbers |= task_numbers
    return sections, numbers, bounds


def read_or(default: _T, read: Callable[[int], _T], step: int, *, damage: list[str]) -> _T:
    """Read something of a step; where it is damaged, append that to `damage` and return the default."""
    try:
        return read(step)
    except DamageError as error:
        damage.append(error.problem)
        return default


def read_credit(folder: RunFolder, step: int) -> dict[str, CreditRecord]:
    """Read a step's credit; empty if the step learned nothing or was stopped before that."""
    try:
        return folder.read_credit(step)
    except DamageError:
        raise
    except FolderError:
        return {}


def describe_unused_groups(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Describe the groups that a step did not learn from, those that failed first."""
    labels = ("every sibling broke", "all siblings failed", "all siblings succeeded", "mixed, but not needed")
    tasks_by_label: dict[str, list[str]] = {label: [] for label in labels}
    for group in groups:
        num_successes = sum(rollout.success for rollout in group.rollouts)
        number = (1 if not num_successes else 2 if num_successes == len(group.rollouts) else 3) if group.rollouts else 0
        parts = [f"{num_successes} of {len(group.rollouts)} succeeded"] if group.rollouts else []
        if group.broken:
            parts.append(f"{len(group.broken)} broken, the first by {group.broken[0].broken}")
        tasks_by_label[labels[number]].append(escape_text(f"{group.task.id} ({', '.join(parts)})"))
    return {label: tasks for label, tasks in tasks_by_label.items() if tasks}


def pick_evenly(steps: Sequence[int], count: int) -> list[int]:
    """Pick the first, the last, and some evenly between.

    >>> pick_evenly(range(1, 41), 4)
    [1, 14, 27, 40]
    """
    if len(steps) <= count:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (count - 1))] for index in range(count)]


def load_token_decoder(folder: RunFolder, damage: list[str]) -> tuple[TokenDecoder, str]:
    """Load the tokenizer of the run; without one, ids are shown as numbers, and the second value gives the reason.

    A damaged folder is appended to `damage`, and the next one is tried.
    """
    from sgcd.chat import Chat

    if (folder.path / WORDS_FILE).is_file():
        return partial(decode_token_texts, load_words(folder.path)), ""
    candidates = [folder.policy_path, *(folder.checkpoint_path(step) for step in reversed(folder.checkpoint_steps()))]
    candidates.append(folder.path / TOKENIZER_FOLDER)
    for policy_path in candidates:
        if not policy_path.is_dir():
            continue
        needs_manifest = folder.has_checksums and policy_path.name != TOKENIZER_FOLDER
        problems = [*find_folder_damage(policy_path, needs_manifest=needs_manifest, is_read=is_light_file)]
        damage += problems
        if problems:
            continue
        try:
            chat = Chat.load(policy_path)
        except Exception as problem:  # of transformers and tokenizers, where a run has no checksums
            return ids_as_texts, f"Tokens are shown as ids: {escape_text(str(problem))}"
        return partial(decode_token_texts, chat), ""
    found = "whole checkpoint" if damage else "checkpoint yet"
    return ids_as_texts, f"Tokens are shown as ids: the run has no {found}, and so no tokenizer"


def decode_token_texts(chat: Any, ids: TokenIds) -> list[str]:
    return split_token_texts(*chat.decode_with_spans(ids))


def split_token_texts(text: str, spans: Any) -> list[str]:
    """Split a text into tokens. A character made of several tokens goes to the first of them."""
    texts: list[str] = []
    consumed = 0
    for start, stop in spans.tolist():
        texts.append(text[max(consumed, start) : stop] or "‥")
        consumed = max(consumed, stop)
    return texts


def ids_as_texts(ids: TokenIds) -> list[str]:
    return [f" {token}" for token in ids.tolist()]
