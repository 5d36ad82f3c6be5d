"""sgcd sft: a supervised start from conversations, or a resumed one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.commands.train import (
    RunVerb,
    check_resumable,
    hint_at_resume,
    print_run_summary,
    summarise_run,
)
from sgcd.cli.options import TYPER_OPTIONS, CommandWithKeys, JsonFlag, RecipeWords
from sgcd.cli.output import print_json, progress_console
from sgcd.errors import FolderError

if TYPE_CHECKING:
    from sgcd.learn.supervised.data import SupervisedData
    from sgcd.learn.training.context import RunContext
    from sgcd.recipe.schema import Recipe
    from sgcd.storage.run_folder import RunFolder

sft_app = typer.Typer(**TYPER_OPTIONS)


@sft_app.command(cls=CommandWithKeys)
def sft(
    run: Annotated[Path, typer.Option(help="The run's folder: a new one, or with --resume the one to resume.")],
    words: RecipeWords = None,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped, exact to the bit.")] = False,
    fall_back: Annotated[
        bool, typer.Option("--fall-back", help="With --resume, of a damaged run: go on from its last whole checkpoint.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Learn from the conversations that the recipe's section supervised names.

    The loss is on the assistant's tokens alone. Held-out tasks are played as in training, so that the best checkpoint
    is the one that succeeds most. The number of steps follows from conversations, epochs and batch size.
    """
    verb = RunVerb("sft", "supervised", start_supervised, resume_locked_supervised)
    summary = verb.start_or_resume(words or [], run, resume=resume, fall_back=fall_back)
    if json:
        print_json(summary)
    else:
        print_run_summary(summary)


def start_supervised(path: Path, keys: Sequence[str], run: Path) -> dict[str, Any]:
    from sgcd.assemble import assemble, collect_facts
    from sgcd.learn.supervised.data import check_supervised
    from sgcd.recipe.load import load_recipe
    from sgcd.recipe.schema import dump_recipe
    from sgcd.show.trackers import check_trackers
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder
    from sgcd.study.memory_check import fit_to_memory

    recipe = load_recipe(path, keys)
    RunFolder.check_free(run)
    check_supervised(recipe.supervised)
    check_trackers(recipe.trackers)
    context = assemble(recipe)
    context.check_ready()
    data = load_data(recipe, context)
    longest_row = max(len(one.prompt) + len(one.response) for one in data.data.rollouts)
    memory_fit = fit_to_memory(recipe, context.policy.model.config, 0, longest_row=longest_row)
    recipe = memory_fit.fill_in(recipe.model_copy(update={"steps": data.num_steps(recipe.seed)}))
    with lock_run(run):
        facts = {"supervised": {"files": data.checksums, **data.counts()}}
        folder = RunFolder.create(run, dump_recipe(recipe), collect_facts(recipe, context) | facts)
        return train_supervised(recipe, folder, context, data)


def resume_locked_supervised(folder: "RunFolder", path: Path | None, keys: Sequence[str]) -> dict[str, Any]:
    from sgcd.assemble import assemble, collect_facts
    from sgcd.learn.supervised.data import check_supervised
    from sgcd.recipe.load import load_recipe
    from sgcd.recipe.schema import dump_recipe, keep_micro_batches
    from sgcd.show.trackers import check_trackers
    from sgcd.storage.provenance import environment_changes
    from sgcd.storage.verify import check_trained

    check_trained(folder, "supervised")
    started = load_recipe(folder.path / "recipe.yaml")
    recipe = keep_micro_batches(load_recipe(path or folder.path / "recipe.yaml", keys), started)
    check_supervised(recipe.supervised)
    check_trackers(recipe.trackers)
    context = assemble(recipe, threads=folder.facts["machine"]["threads"])
    context.check_ready()
    data = load_data(recipe, context)
    check_same_data(folder, data)
    recipe = recipe.model_copy(update={"steps": data.num_steps(recipe.seed)})
    check_resumable(folder, started, recipe)
    for warning in environment_changes(folder.facts, collect_facts(recipe, context)):
        progress_console().print(warning, soft_wrap=True)
    if recipe != started:
        folder.replace_recipe(dump_recipe(recipe))
    return train_supervised(recipe, folder, context, data)


def load_data(recipe: "Recipe", context: "RunContext") -> "SupervisedData":
    """The conversations as the policy reads them; says what is left out."""
    from sgcd.learn.policy.load import get_context_window
    from sgcd.learn.supervised.data import check_supervised, load_supervised_data

    window = get_context_window(context.policy.model.config)
    data = load_supervised_data(check_supervised(recipe.supervised), context.reference_builder, window)
    for line in data.describe_left_out():
        progress_console().print(line, soft_wrap=True)
    return data


def check_same_data(folder: "RunFolder", data: "SupervisedData") -> None:
    """Refuse to go on with other conversations than the run was started with."""
    files: dict[str, str] = folder.facts["supervised"]["files"]
    changed = [file for file, checksum in data.checksums.items() if files.get(file) != checksum]
    if changed:
        raise FolderError(
            f"{folder.path}: {changed[0]} has changed since the run was started; restore it, or start a new run"
        )


def train_supervised(
    recipe: "Recipe", folder: "RunFolder", context: "RunContext", data: "SupervisedData"
) -> dict[str, Any]:
    from sgcd.learn.supervised.trainer import SupervisedTrainer
    from sgcd.show.trackers import TrackedTerminal

    with TrackedTerminal(progress_console(), recipe.steps, folder=folder, trackers=recipe.trackers) as terminal:
        epochs, reading = data.settings.epochs, data.reading
        pairs = f", and from {len(reading.pairs)} pairs of {reading.num_groups} groups" if reading.pairs else ""
        terminal.print_line(
            f"{recipe.policy.start} learns from {len(data.data.rollouts)} conversations with {data.data.num_tokens} "
            f"tokens of its own{pairs}, in {epochs} epochs of {recipe.steps // epochs} steps"
        )
        with hint_at_resume(folder, terminal.print_line):
            asyncio.run(SupervisedTrainer(recipe, context, terminal, folder=folder, data=data).run())
    return summarise_run(folder, recipe.evaluation.split) | {"supervised": data.counts()}
