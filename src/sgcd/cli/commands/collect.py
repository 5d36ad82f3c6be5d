"""sgcd collect: plays training tasks with a policy or any chat model, and keeps the successes as conversations."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.commands.evaluate import endpoint_facts
from sgcd.cli.commands.train import check_resumable
from sgcd.cli.options import TYPER_OPTIONS, JsonFlag, RecipeWords
from sgcd.cli.output import print_json, progress_console, results_console, split_recipe_and_keys
from sgcd.errors import EmptyResult, FolderError, RecipeError
from sgcd.storage.atomic import SCHEMA

if TYPE_CHECKING:
    from sgcd.recipe.schema import Recipe
    from sgcd.storage.run_folder import RunFolder

collect_app = typer.Typer(**TYPER_OPTIONS)


@collect_app.command()
def collect(
    run: Annotated[Path, typer.Option(help="The folder: a new one, or with --resume the one to go on with.")],
    words: RecipeWords = None,
    *,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of each task.")] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="How many tasks, from the first on.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a folder; no trial is played twice.")] = False,
    json: JsonFlag = False,
) -> None:
    """Play training tasks, and keep the successes in demonstrations.jsonl, which sgcd sft learns from.

    The recipe's evaluation.model plays if there is one, else its policy. Trials, tasks and temperature that are not
    given are those of the section evaluation.
    """
    recipe_path, keys = split_recipe_and_keys(words or [])
    options = {"trials": trials, "tasks": tasks}
    keys = [*keys, *(f"evaluation.{name}={value}" for name, value in options.items() if value is not None)]
    folder_words = f"--run {run}"
    if recipe_path is None and not resume:
        raise RecipeError(f"a new collection needs a recipe: sgcd collect RECIPE {folder_words}; or --resume")
    counts = collect_into_folder(recipe_path, keys, run, resume=resume)
    demonstrations = run / "demonstrations.jsonl"
    no_result = "" if counts["successes"] else describe_no_success(run, counts)
    if json:
        print_json({"schema": SCHEMA, "demonstrations": str(demonstrations), **counts, "no_result": no_result or None})
    else:
        results_console().print(
            f"{counts['successes']} of {counts['trials']} trials succeeded, on {counts['tasks_with_success']} of "
            f"{counts['tasks']} tasks; {counts['broken']} broke: {demonstrations}",
            soft_wrap=True,
        )
    if no_result:
        raise EmptyResult(no_result)


def describe_no_success(run: Path, counts: dict[str, Any]) -> str:
    from sgcd.measure.validity import describe_commonest_cause

    broken = f"; {counts['broken']} broke, {describe_commonest_cause(counts['causes'])}" if counts["broken"] else ""
    return f"{run}: none of {counts['trials']} trials succeeded{broken}; let a stronger model play, or easier tasks"


def collect_into_folder(path: Path | None, keys: Sequence[str], run: Path, *, resume: bool) -> dict[str, Any]:
    from sgcd.recipe.load import load_recipe
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    if resume:
        RunFolder.check_is_run(run)
    else:
        RunFolder.check_free(run)
    recipe = load_recipe(path or run / "recipe.yaml", keys)
    with lock_run(run):
        folder = None
        if resume:
            folder = RunFolder.open(run)
            if folder.kind != "collection":
                raise FolderError(f"{run}: sgcd collect did not make this folder; name another one")
            check_resumable(folder, load_recipe(run / "recipe.yaml"), recipe)
        try:
            return play_and_count(recipe, folder, run)
        except KeyboardInterrupt:
            progress_console().print(f"stopped; to go on: sgcd collect --run {run} --resume", soft_wrap=True)
            raise typer.Exit(130) from None


def play_and_count(recipe: "Recipe", folder: "RunFolder | None", run: Path) -> dict[str, Any]:
    from sgcd.learn.supervised.collect import collecting_settings

    collecting = recipe.model_copy(update={"evaluation": collecting_settings(recipe.evaluation)})
    play = play_endpoint_trials if recipe.evaluation.model else play_policy_trials
    return play(recipe, collecting, folder, run)


def play_policy_trials(recipe: "Recipe", collecting: "Recipe", folder: "RunFolder | None", run: Path) -> dict[str, Any]:
    """Let the recipe's policy play."""
    from sgcd.assemble import assemble, collect_facts
    from sgcd.learn.supervised.collect import Collection, collect_with_policy

    context = assemble(collecting, threads=folder.facts["machine"]["threads"] if folder else None, trains=False)
    context.check_ready()
    folder = folder or create_folder(recipe, run, collect_facts(recipe, context))
    collection = Collection(folder, context.policy.chat)
    announce(collecting, context.task_suite, recipe.policy.start)

    async def play() -> None:
        async with context.user_endpoint.connect() if context.user_endpoint else nullcontext():
            play_context = context.play_context(recipe.siblings.limits)
            await collect_with_policy(collection, play_context, collecting.evaluation, seed=recipe.seed)

    asyncio.run(play())
    return collection.counts()


def play_endpoint_trials(
    recipe: "Recipe", collecting: "Recipe", folder: "RunFolder | None", run: Path
) -> dict[str, Any]:
    """Let the model behind `evaluation.model` play; each trial is on disk as soon as it ends."""
    from sgcd.build_tasks import build_endpoint_evaluation
    from sgcd.endpoint.client import check_endpoints
    from sgcd.learn.supervised.collect import Collection

    evaluation = build_endpoint_evaluation(collecting)
    check_endpoints(evaluation.endpoints)
    folder = folder or create_folder(recipe, run, endpoint_facts(evaluation))
    collection = Collection(folder)
    announce(collecting, evaluation.task_suite, evaluation.model_endpoint.describe())
    asyncio.run(
        evaluation.evaluate(
            folder.path,
            select_trials=collection.select_missing,
            on_trial=lambda row, rollout: collection.add([(row, rollout)]),
        )
    )
    return collection.counts()


def create_folder(recipe: "Recipe", run: Path, facts: dict[str, Any]) -> "RunFolder":
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.run_folder import RunFolder

    return RunFolder.create(run, dump_recipe(recipe), {**facts, "collection": True})


def announce(recipe: "Recipe", task_suite: Any, player: str) -> None:
    from sgcd.build_tasks import count_trials

    count = count_trials(recipe, task_suite)
    progress_console().print(f"playing {count} trials of train tasks with {player}", soft_wrap=True)
