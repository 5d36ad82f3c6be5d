"""sgcd sft: a supervised start from conversations, or a resumed one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.commands.train import check_resumable, print_run_summary, summarise_run
from sgcd.cli.options import TYPER_OPTIONS, CommandWithKeys, JsonFlag, RecipeWords
from sgcd.cli.output import print_json, progress_console, split_recipe_and_keys
from sgcd.errors import DataError, FolderError, RecipeError

if TYPE_CHECKING:
    from sgcd.learn.supervised.encode import Examples
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
    recipe_path, keys = split_recipe_and_keys(words or [])
    if resume:
        summary = resume_supervised(recipe_path, keys, run, fall_back=fall_back)
    elif fall_back:
        raise RecipeError(f"--fall-back: only goes with --resume: sgcd sft --run {run} --resume --fall-back")
    elif recipe_path is None:
        raise RecipeError(f"a new run needs a recipe: sgcd sft RECIPE --run {run}; to go on with one: --resume")
    else:
        summary = start_supervised(recipe_path, keys, run)
    if json:
        print_json(summary)
    else:
        print_run_summary(summary)


def start_supervised(path: Path, keys: Sequence[str], run: Path) -> dict[str, Any]:
    from sgcd.assemble import assemble, collect_facts
    from sgcd.recipe.load import load_recipe
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    recipe = load_recipe(path, keys)
    RunFolder.check_free(run)
    check_data_files(recipe)
    context = assemble(recipe)
    context.check_ready()
    examples = encode_data(recipe, context)
    recipe = with_steps(recipe, examples["data"])
    with lock_run(run):
        facts = collect_facts(recipe, context) | {"supervised": data_facts(recipe, examples)}
        folder = RunFolder.create(run, dump_recipe(recipe), facts)
        return train_supervised(recipe, folder, context, examples)


def resume_supervised(path: Path | None, keys: Sequence[str], run: Path, *, fall_back: bool) -> dict[str, Any]:
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder
    from sgcd.storage.verify import restore_whole_checkpoint

    RunFolder.check_is_run(run)
    with lock_run(run):
        for line in restore_whole_checkpoint(run, "supervised") if fall_back else ():
            progress_console().print(line, soft_wrap=True)
        return resume_locked_supervised(RunFolder.open(run), path, keys)


def resume_locked_supervised(folder: "RunFolder", path: Path | None, keys: Sequence[str]) -> dict[str, Any]:
    from sgcd.assemble import assemble, collect_facts
    from sgcd.recipe.load import load_recipe
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.provenance import environment_changes
    from sgcd.storage.verify import check_trained

    check_trained(folder, "supervised")
    started = load_recipe(folder.path / "recipe.yaml")
    recipe = load_recipe(path or folder.path / "recipe.yaml", keys)
    check_data_files(recipe)
    context = assemble(recipe, threads=folder.facts["machine"]["threads"])
    context.check_ready()
    examples = encode_data(recipe, context)
    check_same_data(folder, data_facts(recipe, examples))
    recipe = with_steps(recipe, examples["data"])
    check_resumable(folder, started, recipe)
    for warning in environment_changes(folder.facts, collect_facts(recipe, context)):
        progress_console().print(warning, soft_wrap=True)
    if recipe != started:
        folder.replace_recipe(dump_recipe(recipe))
    return train_supervised(recipe, folder, context, examples)


def check_data_files(recipe: "Recipe") -> None:
    """Refuse a recipe without conversations before a policy is loaded."""
    from sgcd.learn.supervised.conversations import find_files

    if recipe.supervised is None:
        raise RecipeError(
            "supervised: missing; say what to learn from, such as supervised.data=[demonstrations.jsonl], files of "
            "JSON lines with messages and tools or folders that sgcd collect has made"
        )
    find_files("supervised.data", recipe.supervised.data)
    find_files("supervised.dev", recipe.supervised.dev)


def encode_data(recipe: "Recipe", context: "RunContext") -> "dict[str, Examples]":
    """The conversations of `supervised.data` and `supervised.dev` as the policy reads them."""
    from sgcd.learn.policy.load import get_context_window
    from sgcd.learn.supervised.conversations import find_files, read_conversations
    from sgcd.learn.supervised.encode import encode_conversations

    settings = recipe.supervised
    assert settings is not None
    window = min(settings.window, get_context_window(context.policy.model.config))
    examples: dict[str, Examples] = {}
    for key, paths in (("data", settings.data), ("dev", settings.dev)):
        files = find_files(f"supervised.{key}", paths)
        lines = (conversation for file in files for conversation in read_conversations(file))
        examples[key] = encode_conversations(lines, context.policy.chat, window)
        for line in examples[key].describe_left_out():
            progress_console().print(f"supervised.{key}: {line}", soft_wrap=True)
        if paths and not examples[key].rollouts:
            reasons = "; ".join(examples[key].describe_left_out()) or "the files are empty"
            raise DataError(f"supervised.{key}: no conversation can be learned from: {reasons}")
    return examples


def with_steps(recipe: "Recipe", examples: "Examples") -> "Recipe":
    """The recipe with the number of steps that its conversations take."""
    from sgcd.learn.supervised.trainer import build_batch_order

    settings = recipe.supervised
    assert settings is not None
    order = build_batch_order(examples.rollouts, settings, recipe.seed)
    return recipe.model_copy(update={"steps": settings.epochs * order.steps_per_epoch})


def data_facts(recipe: "Recipe", examples: "dict[str, Examples]") -> dict[str, Any]:
    """What was learned from: the checksum of each file, and what was left out."""
    from sgcd.learn.supervised.conversations import find_files
    from sgcd.storage.manifest import file_checksum

    settings = recipe.supervised
    assert settings is not None
    files = [*find_files("supervised.data", settings.data), *find_files("supervised.dev", settings.dev)]
    counts = {
        key: {"conversations": len(part.rollouts), "tokens": part.num_tokens, "left_out": part.left_out}
        for key, part in examples.items()
    }
    return {"files": {str(file): file_checksum(file) for file in files}, **counts}


def check_same_data(folder: "RunFolder", facts: dict[str, Any]) -> None:
    """Refuse to go on with other conversations than the run was started with."""
    files: dict[str, str] = folder.facts["supervised"]["files"]
    changed = [file for file, checksum in facts["files"].items() if files.get(file) != checksum]
    if changed:
        raise FolderError(
            f"{folder.path}: {changed[0]} has changed since the run was started; restore it, or start a new run"
        )


def train_supervised(
    recipe: "Recipe", folder: "RunFolder", context: "RunContext", examples: "dict[str, Examples]"
) -> dict[str, Any]:
    from sgcd.learn.supervised.trainer import SupervisedData, SupervisedTrainer
    from sgcd.show.terminal import Terminal

    settings = recipe.supervised
    assert settings is not None
    data = SupervisedData(examples["data"].rollouts, examples["dev"].rollouts)
    with Terminal(progress_console(), recipe.steps) as terminal:
        terminal.print_line(
            f"{recipe.policy.start} learns from {len(data.train)} conversations with {examples['data'].num_tokens} "
            f"tokens of its own, in {settings.epochs} epochs of {recipe.steps // settings.epochs} steps"
        )
        trainer = SupervisedTrainer(recipe, settings, context, terminal, folder=folder, data=data)
        try:
            asyncio.run(trainer.run())
        except KeyboardInterrupt:
            terminal.print_line(f"stopped; to go on: {folder.resume_command}")
            raise typer.Exit(130) from None
    counts = {name: value for name, value in folder.facts["supervised"].items() if name != "files"}
    return summarise_run(folder, recipe.evaluation.split) | {"supervised": counts}
