"""sgcd train: starts a run, or resumes one."""

import asyncio
import json as jsonlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.commands.check import check_window
from sgcd.cli.options import TYPER_OPTIONS, CommandWithKeys, JsonFlag, RecipeWords
from sgcd.cli.output import print_json, progress_console, results_console, split_recipe_and_keys
from sgcd.errors import EmptyResult, FolderError, RecipeError
from sgcd.storage.atomic import SCHEMA

if TYPE_CHECKING:
    from sgcd.learn.training.context import RunContext
    from sgcd.recipe.schema import Recipe
    from sgcd.storage.run_folder import RunFolder, RunKind

train_app = typer.Typer(**TYPER_OPTIONS)


@train_app.command(cls=CommandWithKeys)
def train(
    run: Annotated[Path, typer.Option(help="The run's folder: a new one, or with --resume the one to resume.")],
    words: RecipeWords = None,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped, exact to the bit.")] = False,
    fall_back: Annotated[
        bool, typer.Option("--fall-back", help="With --resume, of a damaged run: go on from its last whole checkpoint.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Train a policy, or resume a run."""
    verb = RunVerb("train", "training", start_run, resume_locked_run)
    summary = verb.start_or_resume(words or [], run, resume=resume, fall_back=fall_back)
    no_result = no_result_reason(run, summary)
    if json:
        print_json({**summary, "no_result": no_result or None})
    else:
        print_run_summary(summary)
    if no_result:
        raise EmptyResult(no_result)


@dataclass(frozen=True, slots=True)
class RunVerb:
    """A command that starts a run or resumes one: the frame of `sgcd train` and `sgcd sft`."""

    name: str
    kind: "RunKind"
    start: Callable[[Path, Sequence[str], Path], dict[str, Any]]
    """Gets the recipe, its keys and the new folder; returns the summary of the run."""
    resume_locked: Callable[["RunFolder", Path | None, Sequence[str]], dict[str, Any]]
    """Gets the folder, whose lock is held, another recipe if there is one, and keys."""

    def start_or_resume(self, words: Sequence[str], run: Path, *, resume: bool, fall_back: bool) -> dict[str, Any]:
        recipe_path, keys = split_recipe_and_keys(words)
        if resume:
            return resume_run(self, recipe_path, keys, run, fall_back=fall_back)
        if fall_back:
            raise RecipeError(
                f"--fall-back: only goes with --resume: sgcd {self.name} --run {run} --resume --fall-back"
            )
        if recipe_path is None:
            raise RecipeError(
                f"a new run needs a recipe: sgcd {self.name} RECIPE --run {run}; "
                f"to go on with a run that was stopped: sgcd {self.name} --run {run} --resume"
            )
        return self.start(recipe_path, keys, run)


def resume_run(verb: RunVerb, path: Path | None, keys: Sequence[str], run: Path, *, fall_back: bool) -> dict[str, Any]:
    """Lock the folder, fall back to a whole checkpoint where that is asked for, and go on."""
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder
    from sgcd.storage.verify import restore_whole_checkpoint

    RunFolder.check_is_run(run)
    with lock_run(run):
        for line in restore_whole_checkpoint(run, verb.kind) if fall_back else ():
            progress_console().print(line, soft_wrap=True)
        return verb.resume_locked(RunFolder.open(run), path, keys)


@contextmanager
def hint_at_resume(folder: "RunFolder", print_line: Callable[[str], None] | None = None) -> Generator[None, None, None]:
    """Ctrl-C ends the command with code 130, and says how to go on: on standard error, or by `print_line`."""
    from sgcd.storage.verify import resume_command

    try:
        yield
    except KeyboardInterrupt:
        line = f"stopped; to go on: {resume_command(folder)}"
        if print_line:
            print_line(line)
        else:
            progress_console().print(line, soft_wrap=True)
        raise typer.Exit(130) from None


def no_result_reason(run: Path, summary: Mapping[str, Any]) -> str:
    """Whether the run moved nothing, most of it broke, or its last evaluation broke altogether; empty otherwise."""
    from sgcd.measure.summary import unmeasured_reason
    from sgcd.measure.validity import fruitless_reason
    from sgcd.storage.run_folder import RunFolder

    if reason := fruitless_reason(RunFolder.open(run).read_metrics()):
        return f"{run}: {reason}; the run can go on: sgcd train --run {run} --resume steps=N"
    return unmeasured_reason(summary["end"]) if "end" in summary else ""


def start_run(path: Path, keys: Sequence[str], run: Path) -> dict[str, Any]:
    from sgcd.recipe.load import load_recipe
    from sgcd.recipe.schema import dump_recipe
    from sgcd.show.trackers import check_trackers
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    recipe = load_recipe(path, keys, is_supervised=False)
    if (run / "recipe.yaml").exists():
        raise FolderError(
            f"{run}: there is a run in this folder already; go on with it (sgcd train --run {run} --resume), "
            "or choose another folder"
        )
    if recipe.engine == "verl":
        return start_on_verl(recipe, run)
    check_trackers(recipe.trackers)
    from sgcd.assemble import assemble, collect_facts
    from sgcd.study.memory_check import fit_to_memory

    context = assemble(recipe)
    prompt_tokens = asyncio.run(check_window(recipe, context.policy))
    recipe = fit_to_memory(recipe, context.policy.model.config, prompt_tokens).fill_in(recipe)
    context.check_ready()
    RunFolder.check_free(run)
    with lock_run(run):
        folder = RunFolder.create(run, dump_recipe(recipe), collect_facts(recipe, context))
        return train_and_summarise(recipe, folder, context)


def start_on_verl(recipe: "Recipe", run: Path) -> dict[str, Any]:
    """A run's folder for verl's workers, which train; its policy is measured by `sgcd evaluate`."""
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder
    from sgcd.verl import check_installed
    from sgcd.verl.translate import check_for_verl

    asyncio.run(check_for_verl(recipe))
    check_installed()
    RunFolder.check_free(run)
    from sgcd.verl.run import collect_verl_facts, train_on_verl

    with lock_run(run):
        folder = RunFolder.create(run, dump_recipe(recipe), collect_verl_facts(recipe))
        with hint_at_resume(folder):
            train_on_verl(recipe, run)
        return summarise_run(folder, recipe.evaluation.split)


def resume_locked_run(folder: "RunFolder", path: Path | None, keys: Sequence[str]) -> dict[str, Any]:
    from sgcd.recipe.load import load_recipe
    from sgcd.recipe.schema import dump_recipe, keep_micro_batches
    from sgcd.storage.verify import check_trained

    run = folder.path
    check_trained(folder, "training")
    started_recipe = load_recipe(run / "recipe.yaml")
    recipe = keep_micro_batches(load_recipe(path or run / "recipe.yaml", keys), started_recipe)
    check_resumable(folder, started_recipe, recipe)
    if recipe.engine == "verl":
        from sgcd.verl import check_installed

        check_installed()
        from sgcd.verl.run import resume_on_verl

        folder.replace_recipe(dump_recipe(recipe))
        with hint_at_resume(folder):
            resume_on_verl(recipe, folder)
        return summarise_run(folder, recipe.evaluation.split)
    from sgcd.assemble import assemble, collect_facts
    from sgcd.show.trackers import check_trackers
    from sgcd.storage.provenance import environment_changes

    check_trackers(recipe.trackers)
    context = assemble(recipe, threads=folder.facts["machine"]["threads"])
    context.check_ready()
    for warning in environment_changes(folder.facts, collect_facts(recipe, context)):
        progress_console().print(warning, soft_wrap=True)
    if recipe != started_recipe:
        folder.replace_recipe(dump_recipe(recipe))
    return train_and_summarise(recipe, folder, context)


def check_resumable(folder: "RunFolder", started_recipe: "Recipe", recipe: "Recipe") -> None:
    """Refuse a change that would make the rest of the run another run's."""
    from sgcd.recipe.schema import RESUMABLE_KEYS, may_change_on_resume, recipe_differences

    changed = [change for change in recipe_differences(started_recipe, recipe) if not may_change_on_resume(change.key)]
    if changed:
        was = ", ".join(f"{change.key}={_format_value(change.old)}" for change in changed)
        now = ", ".join(f"{change.key}={_format_value(change.new)}" for change in changed)
        raise FolderError(
            f"{folder.path}: the run was started with {was}; {now} cannot be resumed, only "
            f"{', '.join(sorted(RESUMABLE_KEYS))} may change; start a new run in another folder"
        )
    steps_done = max(folder.checkpoint_steps(), default=0)
    if recipe.steps < steps_done:
        raise FolderError(
            f"{folder.path}: the run has done {steps_done} steps already, more than steps={recipe.steps}; give "
            f"steps={steps_done} or more, or start a new run in another folder"
        )


def train_and_summarise(recipe: "Recipe", folder: "RunFolder", context: "RunContext") -> dict[str, Any]:
    from sgcd.learn.training.trainer import Trainer
    from sgcd.show.trackers import TrackedTerminal

    with TrackedTerminal(progress_console(), recipe.steps, folder=folder, trackers=recipe.trackers) as terminal:
        terminal.print_line(describe_start(recipe, folder))
        with hint_at_resume(folder, terminal.print_line):
            result = asyncio.run(Trainer(recipe, context, terminal, folder=folder).run())
        if not result.num_new_steps:
            terminal.print_line(f"no step is left: the run had reached step {result.step}; to go further give steps=N")
    return summarise_run(folder, recipe.evaluation.split)


def describe_start(recipe: "Recipe", folder: "RunFolder") -> str:
    """Which method trains which policy in which folder, on one line."""
    parameters = folder.facts["policy"]["parameters"]
    method = " ".join([recipe.method.name, getattr(recipe.method, "class_", "")]).strip()
    steps_done = max(folder.checkpoint_steps(), default=0)
    resumed = f", resumed after step {steps_done}" if steps_done else ""
    return f"{method} trains {recipe.policy.start} ({parameters:,} parameters) in {folder.path}{resumed}"


def summarise_run(folder: "RunFolder", split: str) -> dict[str, Any]:
    """The result of a finished run, read from its folder."""
    from sgcd.measure.compare import compare_evaluations, load_first_and_last
    from sgcd.measure.health import fallen_category_warnings, run_invalid_reasons, run_warnings
    from sgcd.measure.summary import summarise_evaluation

    metrics = folder.read_metrics()
    step = metrics[-1].step if metrics else 0
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "run": str(folder.path),
        "policy": str(folder.policy_path),
        "step": step,
    }
    was_evaluated = any(row["split"] == split for row in folder.read_evaluations())
    if was_evaluated:
        start, end = load_first_and_last(folder.path, split)
        summary |= {
            "start": summarise_evaluation(start.rows),
            "end": summarise_evaluation(end.rows),
            "change": compare_evaluations([end], [start]),
        }
    fallen = fallen_category_warnings(summary["change"]) if was_evaluated else []
    return summary | {"health": [*run_warnings(metrics), *fallen], "invalid": run_invalid_reasons(metrics)}


def print_run_summary(summary: dict[str, Any]) -> None:
    from sgcd.show.tables import change_table, evaluation_remarks

    out = results_console()
    if "change" in summary:
        out.print(change_table(summary["start"], summary["end"], summary["change"]))
        for line in evaluation_remarks(summary["end"]):
            out.print(line, soft_wrap=True)
    else:
        out.print("no held-out tasks, so nothing was measured; name some by environment.dev")
    for warning in summary["health"]:
        out.print(warning, soft_wrap=True)
    out.print(f"policy: {summary['policy']}", soft_wrap=True)


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else jsonlib.dumps(value)
