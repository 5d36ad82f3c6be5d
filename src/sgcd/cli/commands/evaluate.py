"""sgcd evaluate: plays held-out tasks with a run's policy, any other policy, or a chat model behind an endpoint."""

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.evaluation_output import finish_evaluation, keep_progress
from sgcd.cli.evaluation_recipes import check_same_evaluation, load_policy_recipe, load_run_recipe, saved_step
from sgcd.cli.options import TYPER_OPTIONS, JsonFlag, SplitOption
from sgcd.cli.output import progress_console
from sgcd.errors import EnvironmentFault, FolderError, RecipeError

if TYPE_CHECKING:
    from sgcd.build_tasks import EndpointEvaluation
    from sgcd.learn.training.context import RunContext
    from sgcd.measure.progress import EvaluationProgress
    from sgcd.measure.trial_rows import TrialRow
    from sgcd.recipe.schema import Recipe
    from sgcd.storage.run_folder import RunFolder

evaluate_app = typer.Typer(**TYPER_OPTIONS)


@evaluate_app.command()
def evaluate(
    target: Annotated[
        Path, typer.Argument(metavar="RUN_OR_POLICY_OR_RECIPE", help="A run's folder, a policy's, or a recipe's file.")
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="With a recipe's file: keys of it to set.")
    ] = None,
    *,
    split: SplitOption = None,
    trials: Annotated[int | None, typer.Option(min=0, help="Sampled trials of each task.")] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="How many tasks, from the first on.")] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="For a run: the checkpoint of this step instead of the last policy.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="For a policy's folder: the recipe of its environment.")] = None,
    run: Annotated[Path | None, typer.Option(help="With a recipe: a new folder for the result.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped evaluation, by its folder; no trial is played twice.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Play held-out tasks with a trained policy, or with any chat model.

    Options that are not given are as in the recipe. The rows of a run's policy join the run's evaluation.jsonl. With a
    recipe's file the command plays its evaluation.model, a model behind an endpoint with native tool calls, and no
    policy.
    """
    options = {"split": split, "trials": trials, "tasks": tasks}
    keys = [f"evaluation.{name}={value}" for name, value in options.items() if value is not None]
    words = [*(words or []), *keys]
    if resume:
        resume_evaluation(target, words, step=step, others=[recipe, run], as_json=json)
    elif target.is_file():
        from sgcd.recipe.load import load_recipe

        if recipe:
            raise RecipeError(f"{target}: is a recipe already; leave out --recipe {recipe}")
        if step is not None:
            raise RecipeError(f"--step {step}: only goes with a run's folder; {target} is a recipe")
        with new_folder_lock(run):
            evaluate_endpoint(load_recipe(target, words), run, is_resumed=False, as_json=json)
    elif recipe and not (target / "recipe.yaml").is_file():
        if step is not None:
            raise FolderError(f"{target}: is no run's folder, so it has no checkpoint of step {step}; leave out --step")
        with new_folder_lock(run):
            evaluate_with_policy(load_policy_recipe(target, recipe, words), as_json=json, new_folder=run)
    else:
        for word in (*words[: len(words) - len(keys)], *([f"--run {run}"] if run else ())):
            raise RecipeError(f"{word}: only goes with a recipe; {target} is none")
        evaluate_run(target, keys, recipe, step=step, as_json=json)


def new_folder_lock(run: Path | None) -> Any:
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    if run:
        RunFolder.check_free(run)
    return lock_run(run) if run else nullcontext()


def evaluate_run(target: Path, keys: list[str], recipe_path: Path | None, *, step: int | None, as_json: bool) -> None:
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    if not (target / "recipe.yaml").is_file():
        if step is not None:
            raise FolderError(f"{target}: is no run's folder, so it has no checkpoint of step {step}; leave out --step")
        load_policy_recipe(target, recipe_path, keys)  # raises
    folder = RunFolder.open(target)
    with lock_run(target):
        recipe = load_run_recipe(folder, recipe_path, keys, step)
        begun = {"keys": keys, "checkpoint": step, "step": saved_step(Path(recipe.policy.start))}
        evaluate_with_policy(recipe, folder, begun, as_json=as_json)


def resume_evaluation(
    target: Path, words: list[str], *, step: int | None, others: list[Path | None], as_json: bool
) -> None:
    """Go on with the stopped evaluation of a run's policy, or with an evaluation that has a folder of its own."""
    from sgcd.measure.progress import read_begun
    from sgcd.recipe.load import load_recipe
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    for other in (other for other in others if other):
        raise RecipeError(f"--resume: {target} has its own recipe and folder; leave out {other}")
    folder = RunFolder.open(target)
    with lock_run(target):
        if folder.kind == "evaluation":
            recipe = load_recipe(target / "recipe.yaml", words)
            check_same_evaluation(folder, load_recipe(target / "recipe.yaml"), recipe)
            if "model" in folder.facts:
                evaluate_endpoint(recipe, target, is_resumed=True, as_json=as_json)
            else:
                evaluate_with_policy(recipe, folder, None, as_json=as_json)
            return
        begun = read_begun(folder)
        for word in (*words, *([f"--step {step}"] if step is not None else ())):
            raise RecipeError(f"--resume: goes on as the evaluation began; leave out {word}")
        recipe = load_run_recipe(folder, None, begun["keys"], begun["checkpoint"])
        if (found := saved_step(Path(recipe.policy.start))) != begun["step"]:
            raise FolderError(
                f"{target}: the evaluation began with the policy of step {begun['step']}, and {recipe.policy.start} is "
                f"that of step {found} now; evaluate it from the start: leave out --resume"
            )
        evaluate_with_policy(recipe, folder, None, as_json=as_json)


def evaluate_with_policy(
    recipe: "Recipe",
    folder: "RunFolder | None" = None,
    begun: Mapping[str, Any] | None = None,
    *,
    as_json: bool,
    new_folder: Path | None = None,
) -> None:
    """Play the recipe's policy. `begun`: see EvaluationProgress."""
    from sgcd.assemble import assemble, collect_facts
    from sgcd.build_tasks import count_trials
    from sgcd.measure.health import run_invalid_reasons
    from sgcd.measure.progress import EvaluationProgress
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.run_folder import RunFolder

    context = assemble(recipe, trains=False)
    num_trials = count_trials(recipe, context.task_suite)
    if not num_trials:
        raise no_trials_error(recipe)
    context.check_ready()
    if new_folder:
        facts = {**collect_facts(recipe, context), "evaluation": True}
        folder, begun = RunFolder.create(new_folder, dump_recipe(recipe), facts), {}
    earlier_rows = folder.read_metrics() if folder else []
    progress = EvaluationProgress(folder, begun) if folder else None  # refuses damage before hours of play
    start = recipe.policy.start
    progress_console().print(f"playing {num_trials} trials of {recipe.evaluation.split} tasks with {start}")
    with keep_progress(progress, new_folder):
        started = perf_counter()
        rows = asyncio.run(play_held_out_tasks(recipe, context, progress))
        seconds = progress.seconds if progress else perf_counter() - started
    user = context.user_endpoint
    extras = {"invalid": run_invalid_reasons(earlier_rows)}
    finish_evaluation(rows, progress, {"user": user} if user else {}, {**extras, "seconds": seconds}, as_json)


async def play_held_out_tasks(
    recipe: "Recipe", context: "RunContext", progress: "EvaluationProgress | None"
) -> "list[TrialRow]":
    """One evaluation of the policy, as training would do it after the step that the policy was saved at."""
    from sgcd.measure.evaluate import evaluate_policy

    play_context = context.play_context(recipe.siblings.limits)
    has_journal = progress and progress.folder.kind == "evaluation"
    journal = progress.folder.path / "user-calls.jsonl" if progress and has_journal else None
    kept: dict[str, Any] = {"select_trials": progress.select_missing, "on_trials": progress.add} if progress else {}
    async with context.user_endpoint.connect(journal) if context.user_endpoint else nullcontext():
        rows = await evaluate_policy(
            play_context, recipe.evaluation, seed=recipe.seed, step=saved_step(Path(recipe.policy.start)), **kept
        )
    return progress.list_rows() if progress else rows


def evaluate_endpoint(recipe: "Recipe", run: Path | None, *, is_resumed: bool, as_json: bool) -> None:
    """Play the model behind evaluation.model, into a folder where one is named."""
    from sgcd.build_tasks import build_endpoint_evaluation, count_trials
    from sgcd.endpoint.client import check_endpoints
    from sgcd.measure.progress import EvaluationProgress
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.run_folder import RunFolder

    evaluation = build_endpoint_evaluation(recipe)
    num_trials = count_trials(recipe, evaluation.task_suite)
    if not num_trials:
        raise no_trials_error(recipe)
    check_endpoints(evaluation.endpoints)
    progress_console().print(
        f"playing {num_trials} trials of {recipe.evaluation.split} tasks with {evaluation.model_endpoint.describe()}",
        soft_wrap=True,
    )
    progress = None
    if run:
        facts = {**endpoint_facts(evaluation), "evaluation": True}
        folder = RunFolder.open(run) if is_resumed else RunFolder.create(run, dump_recipe(recipe), facts)
        progress = EvaluationProgress(folder, None if is_resumed else {})
    with keep_progress(progress, None if is_resumed else run):
        started = perf_counter()
        kept: dict[str, Any] = (
            {"select_trials": progress.select_missing, "on_trial": lambda *trial: progress.add([trial])}
            if progress
            else {}
        )
        trials = asyncio.run(evaluation.evaluate(run, **kept))
        rows = progress.list_rows() if progress else [row for row, _ in trials]
        seconds = progress.seconds if progress else perf_counter() - started
    extras = {"invalid": [], "model": evaluation.settings.model, "seconds": seconds}
    finish_evaluation(rows, progress, evaluation.endpoints, extras, as_json)


def endpoint_facts(evaluation: "EndpointEvaluation") -> dict[str, Any]:
    """The facts of a folder that holds an evaluation and no run."""
    models = {name: {"model": endpoint.settings.model} for name, endpoint in evaluation.endpoints.items()}
    tasks = {split: len(tasks) for split, tasks in evaluation.task_suite.splits.items()}
    sharing = {"sharing": evaluation.task_suite.sharing} if evaluation.task_suite.sharing else {}
    return {"seed": evaluation.recipe.seed, **models, "tasks": tasks, **sharing}


def no_trials_error(recipe: "Recipe") -> EnvironmentFault:
    return EnvironmentFault(f"environment: there are no {recipe.evaluation.split} tasks, or no trials of them to play")
