"""sgcd references: shows a run's references with the tokens that earned credit, and measures how much they matter."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import FolderError, RecipeError

if TYPE_CHECKING:
    from sgcd.chat import Chat
    from sgcd.credit_records import CreditRecord
    from sgcd.records import Group, Rollout
    from sgcd.storage.run_folder import RunFolder

_CONTEXT_TOKENS = 12
"""Tokens of the prompt that are shown before a reference and after it."""
references_app = typer.Typer(no_args_is_help=True, **TYPER_OPTIONS)


@references_app.callback()
def references_callback() -> None:
    """Show the references that the teacher read, and measure how much they matter."""


@references_app.command("show")
def show_reference(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder that still has its rollouts.")],
    task: Annotated[str | None, typer.Option(help="Which task; the first of the step by default.")] = None,
    step: Annotated[int | None, typer.Option(min=1, help="Which step; the last by default.")] = None,
) -> None:
    """Show one group's reference: the writer's input and text, its place in the prompt, and the credited tokens."""
    from sgcd.recipe.load import load_recipe

    folder = open_run_with_rollouts(run)
    step = folder.steps_with_rollouts()[-1] if step is None else step
    groups = {
        stored_group.group.task.id: stored_group.group
        for stored_group in folder.read_rollouts(step)
        if stored_group.is_kept
    }
    rows = {row["task"]: row for row in folder.read_references(step)}
    if not rows:
        raise FolderError(f"{run}: step {step} has no references; its method needs none")
    task_id = next(iter(rows)) if task is None else task
    if task_id not in rows or task_id not in groups:
        raise FolderError(f"{run}: step {step} has no reference of {task_id!r}; expected one of {', '.join(rows)}")
    from sgcd.learn.policy.load import load_policy

    start = latest_policy_path(folder) or load_recipe(folder.path / "recipe.yaml").policy.start
    chat = load_policy(str(start), "float32").chat
    for line in reference_lines(groups[task_id], rows[task_id], folder.read_credit(step), chat=chat, step=step):
        results_console().print(line, soft_wrap=True)


@references_app.command("compare")
def compare_references(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder that still has its rollouts.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys of its recipe to set, such as those of another writer."),
    ] = None,
    *,
    groups: Annotated[int, typer.Option(min=2, help="How many groups of siblings, from the latest step back.")] = 24,
    trials: Annotated[int, typer.Option(min=0, help="In the lab: trials of each task with each reference.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the inserted errors and of all rollouts.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Rewrite a run's references in other ways, and measure how much of the credit stays.

    The ways: other writers and parts of the text, one pair of siblings, each sibling left out, the next group's
    reference, and more and more wrong statements. The measures: overlap of credited tokens, rank correlation of
    weights, and in the lab success with the reference, with intervals.
    """
    from sgcd.assemble import assemble
    from sgcd.recipe.load import load_recipe
    from sgcd.show.study_tables import sensitivity_tables
    from sgcd.storage.atomic import SCHEMA
    from sgcd.study.writer_sensitivity import SensitivitySizes, measure_sensitivity

    folder = open_run_with_rollouts(run)
    policy = latest_policy_path(folder)
    recipe = load_recipe(folder.path / "recipe.yaml", [*(keys or []), *([f"policy.start={policy}"] if policy else [])])
    context = assemble(recipe, trains=False)
    if context.method.needs is None:
        raise RecipeError(
            f"{run}: {recipe.method.name} reads no reference; to see what one would credit, add method.name=sgcd"
        )
    started = perf_counter()
    sizes = SensitivitySizes(groups=groups, trials=trials, seed=seed)
    on_progress = progress_console().print
    result = asyncio.run(measure_sensitivity(folder, recipe, context, sizes=sizes, on_progress=on_progress))
    result = {"schema": SCHEMA, "run": str(run), **result, "seconds": round(perf_counter() - started, 1)}
    if json:
        print_json(result)
        return
    for table in sensitivity_tables(result):
        results_console().print(table, soft_wrap=isinstance(table, str))


def open_run_with_rollouts(run: Path) -> "RunFolder":
    from sgcd.storage.run_folder import RunFolder

    folder = RunFolder.open(run)
    if not folder.steps_with_rollouts():
        raise FolderError(f"{run}: the run has no rollouts/, and so no references; they come with its first step")
    return folder


def latest_policy_path(folder: "RunFolder") -> Path | None:
    """The run's final policy, else its newest checkpoint; None before the first checkpoint."""
    if folder.policy_path.is_dir():
        return folder.policy_path
    steps = folder.checkpoint_steps()
    return folder.checkpoint_path(steps[-1]) if steps else None


def reference_lines(
    group: "Group", row: dict[str, Any], credit_records: "dict[str, CreditRecord]", *, chat: "Chat", step: int
) -> Iterator[str]:
    """The lines that the command prints."""
    from sgcd.contrast.choose import split_by_outcome
    from sgcd.contrast.insert import REFERENCE_FOOTER, REFERENCE_HEADER
    from sgcd.contrast.leakage.literals import find_literals
    from sgcd.contrast.trace import build_trace, render_trace

    num_successes = sum(rollout.success for rollout in group.rollouts)
    yield f"task {group.task.id} in step {step}: {len(group.rollouts)} siblings, {num_successes} of them succeeded"
    yield "\nwhat the writer read"
    literals = find_literals(group, chat)
    compared, _ = split_by_outcome(group.rollouts) or (group.rollouts, None)
    for rollout in compared:
        if rollout.sibling in row["siblings"]:
            yield f"sibling {rollout.sibling}\n{render_trace(build_trace(rollout, literals, chat))}"
    if "text" not in row:
        yield f"no reference: {row['cause']}"
        return
    yield f"what {row['writer']} wrote\n{row['text']}\n"
    if "swapped" in row:
        yield f"with success and failure exchanged\n{row['swapped']}\n"
    first_rollout = group.rollouts[0]
    before, after = (
        first_rollout.prompt[: first_rollout.reference_position],
        first_rollout.prompt[first_rollout.reference_position :],
    )
    yield "where it goes in the teacher's prompt"
    yield f"... {chat.decode(before[-_CONTEXT_TOKENS:]).strip()}\n{REFERENCE_HEADER} ... {REFERENCE_FOOTER}"
    yield f"{chat.decode(after[:_CONTEXT_TOKENS]).strip()} ...\n"
    yield "what was credited: each token of weight above one with its weight, [masked literals], the rest as it was"
    for rollout in group.rollouts:
        if rollout.name in credit_records:
            sign = "success" if rollout.success else "failure"
            yield f"sibling {rollout.sibling}, {sign}, advantage {credit_records[rollout.name].credit.advantage:+.2f}"
            yield from (f"  {line}" for line in credited_turns(rollout, credit_records[rollout.name], chat))


def credited_turns(rollout: "Rollout", credit_record: "CreditRecord", chat: "Chat") -> Iterator[str]:
    """One line per turn of the policy."""
    text, spans = chat.decode_with_spans(rollout.response)
    outside_literals = (
        rollout.response_mask if credit_record.outside_literals is None else credit_record.outside_literals
    )
    for turn in rollout.turns:
        marked_words = list[str]()
        for position in range(turn.start, turn.stop):
            word, weight = (
                text[int(spans[position, 0]) : int(spans[position, 1])],
                credit_record.credit.weight[position],
            )
            stripped = word.strip()
            marked = (
                f"{stripped}({weight:.2f})"
                if weight > 1
                else stripped
                if outside_literals[position]
                else f"[{stripped}]"
            )
            marked_words.append(word.replace(stripped, marked) if stripped else word)
        yield "".join(marked_words).strip()
