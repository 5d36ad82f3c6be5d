"""sgcd evaluate: plays held-out tasks with a run's policy, any other policy, or a chat model behind an endpoint."""

import asyncio
import json as jsonlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag, SplitOption
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import EmptyResult, EnvironmentFault, FolderError, RecipeError

if TYPE_CHECKING:
    from sgcd.build_tasks import EndpointEvaluation
    from sgcd.learn.training.context import RunContext
    from sgcd.measure.trial_rows import TrialRow
    from sgcd.recipe.schema import Recipe
    from sgcd.records import Rollout
    from sgcd.storage.run_folder import RunFolder

_SAVED_POLICY_KEYS = ("policy.lora.rank=0",)
"""A saved policy has its adapter merged."""
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
    run: Annotated[Path | None, typer.Option(help="With a recipe's file: a new folder for the result.")] = None,
    json: JsonFlag = False,
) -> None:
    """Play held-out tasks with a trained policy, or with any chat model.

    Options that are not given are as in the recipe. The rows of a run's policy join the run's evaluation.jsonl. With a
    recipe's file the command plays its evaluation.model, a model behind an endpoint with native tool calls, and no
    policy.
    """
    options = {"split": split, "trials": trials, "tasks": tasks}
    keys = [f"evaluation.{name}={value}" for name, value in options.items() if value is not None]
    if target.is_file():
        from sgcd.recipe.load import load_recipe

        if recipe:
            raise RecipeError(f"{target}: is a recipe already; leave out --recipe {recipe}")
        if step is not None:
            raise RecipeError(f"--step {step}: only goes with a run's folder; {target} is a recipe")
        run_endpoint_evaluation(load_recipe(target, [*(words or []), *keys]), run, json)
        return
    for word in (*(words or []), *([f"--run {run}"] if run else ())):
        raise RecipeError(f"{word}: only goes with a recipe, whose evaluation.model is played; {target} is none")
    run_policy_evaluation(target, keys, recipe, step=step, as_json=json)


def run_policy_evaluation(
    target: Path, keys: list[str], recipe_path: Path | None, *, step: int | None, as_json: bool
) -> None:
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    folder = RunFolder.open(target) if (target / "recipe.yaml").is_file() else None
    with lock_run(target) if folder else nullcontext():
        if folder is None and step is not None:
            raise FolderError(f"{target}: is no run's folder, so it has no checkpoint of step {step}; leave out --step")
        if folder:
            recipe = load_run_recipe(folder, recipe_path, keys, step)
        else:
            recipe = load_policy_recipe(target, recipe_path, keys)
        evaluate_and_print(folder, recipe, as_json=as_json)


def evaluate_and_print(folder: "RunFolder | None", recipe: "Recipe", *, as_json: bool) -> None:
    from sgcd.assemble import assemble
    from sgcd.build_tasks import count_trials
    from sgcd.measure.health import run_invalid_reasons
    from sgcd.measure.summary import is_all_broken, summarise_evaluation

    context = assemble(recipe, trains=False)
    num_trials = count_trials(recipe, context.task_suite)
    if not num_trials:
        raise no_trials_error(recipe)
    context.check_ready()
    earlier_rows = folder.read_metrics() if folder else []
    if folder:
        folder.read_evaluations()  # refuses damage before hours of play
    start = recipe.policy.start
    progress_console().print(f"playing {num_trials} trials of {recipe.evaluation.split} tasks with {start}")
    rows = asyncio.run(play_held_out_tasks(recipe, context, saved_step(Path(start))))
    summary = summarise_evaluation(rows)
    if folder and not is_all_broken(summary):  # rows of the same trials that were played before stay in force
        folder.append_evaluation(rows)
    summary |= {"invalid": run_invalid_reasons(earlier_rows)}
    user = context.user_endpoint
    usage = {"endpoints": {"user": user.usage_tracker.pop_metrics().to_json()}} if user else {}
    print_evaluation(summary | usage, as_json)


async def play_held_out_tasks(recipe: "Recipe", context: "RunContext", step: int) -> "list[TrialRow]":
    """One evaluation of the policy, as training would do it after `step`."""
    from sgcd.measure.evaluate import evaluate_policy

    play_context = context.play_context(recipe.siblings.limits)
    async with context.user_endpoint.connect() if context.user_endpoint else nullcontext():
        return await evaluate_policy(play_context, recipe.evaluation, seed=recipe.seed, step=step)


def saved_step(policy: Path) -> int:
    """The step of the run after which a policy was saved; 0 for a policy from elsewhere."""
    from sgcd.storage.record_files import reading

    for name in ("trained.json", "state.json"):
        if (policy / name).is_file():
            with reading(policy / name):
                return int(jsonlib.loads((policy / name).read_bytes())["step"])
    return 0


def load_run_recipe(folder: "RunFolder", recipe_path: Path | None, keys: list[str], step: int | None) -> "Recipe":
    from sgcd.recipe.load import load_recipe
    from sgcd.storage.manifest import check_folder, is_light_file
    from sgcd.storage.verify import resume_command

    if recipe_path:
        raise RecipeError(f"{folder.path}: a run has its own recipe; leave out --recipe {recipe_path}")
    if "machine" not in folder.facts:
        raise FolderError(f"{folder.path}: holds the evaluation of a model, not a run; sgcd compare reads it")
    steps = folder.checkpoint_steps()
    if step is not None and step not in steps:
        raise FolderError(
            f"{folder.path}: has no checkpoint of step {step}; there are {', '.join(map(str, steps)) or 'none'}; "
            "checkpoint.keep decides how many stay"
        )
    policy = folder.policy_path if step is None else folder.checkpoint_path(step)
    if not policy.is_dir():
        raise FolderError(
            f"{folder.path}: the run has not come to its end, so it has no policy/ yet; go on with it "
            f"({resume_command(folder)}), or evaluate one of its checkpoints: --step N"
        )
    check_folder(policy, needs_manifest=folder.has_checksums, is_read=is_light_file)
    return load_recipe(folder.path / "recipe.yaml", [*keys, *_SAVED_POLICY_KEYS, f"policy.start={policy}"])


def load_policy_recipe(policy: Path, recipe_path: Path | None, keys: list[str]) -> "Recipe":
    from sgcd.recipe.load import load_recipe

    if not policy.is_dir():
        raise FolderError(f"{policy}: does not exist; expected the folder of a run or of a policy, or a recipe")
    if recipe_path is None:
        raise FolderError(
            f"{policy}: is not a run's folder; expected one that sgcd train has made, or for the folder of a policy "
            "the recipe of its environment: --recipe RECIPE"
        )
    return load_recipe(recipe_path, [*keys, *_SAVED_POLICY_KEYS, f"policy.start={policy}"])


def run_endpoint_evaluation(recipe: "Recipe", run: Path | None, as_json: bool) -> None:
    from sgcd.build_tasks import build_endpoint_evaluation, count_trials
    from sgcd.endpoint.client import check_endpoints, pop_endpoint_metrics
    from sgcd.measure.summary import summarise_evaluation

    evaluation = build_endpoint_evaluation(recipe)
    num_trials = count_trials(recipe, evaluation.task_suite)
    if not num_trials:
        raise no_trials_error(recipe)
    check_endpoints(evaluation.endpoints)
    progress_console().print(
        f"playing {num_trials} trials of {recipe.evaluation.split} tasks with {evaluation.model_endpoint.describe()}",
        soft_wrap=True,
    )
    trials = play_into_folder(evaluation, run) if run else asyncio.run(evaluation.evaluate())
    usage = {name: part.to_json() for name, part in pop_endpoint_metrics(evaluation.endpoints).items()}
    extras = {"invalid": [], "model": evaluation.settings.model, "endpoints": usage}
    print_evaluation(summarise_evaluation([row for row, _ in trials]) | extras, as_json)


def play_into_folder(evaluation: "EndpointEvaluation", run: Path) -> "list[tuple[TrialRow, Rollout]]":
    """Play all trials and store them in a new folder. Stopped before its end, or all broken, there is no folder."""
    from sgcd.measure.summary import is_all_broken, summarise_evaluation
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.atomic import remove
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder

    RunFolder.check_free(run)
    with lock_run(run):
        folder = RunFolder.create(run, dump_recipe(evaluation.recipe), endpoint_facts(evaluation))
        try:
            trials = asyncio.run(evaluation.evaluate(run))
        except BaseException:
            remove(run)  # half an evaluation is no result; a cache keeps the answers that were paid for
            raise
        rows = [row for row, _ in trials]
        if is_all_broken(summarise_evaluation(rows)):
            remove(run)  # nothing was measured, and the folder is free to evaluate again
            return trials
        folder.append_evaluation(rows)
        folder.row_files.append("talks.jsonl", [conversation_row(row, rollout) for row, rollout in trials])
    return trials


def endpoint_facts(evaluation: "EndpointEvaluation") -> dict[str, Any]:
    """The facts of a folder that holds an evaluation and no run."""
    models = {name: {"model": endpoint.settings.model} for name, endpoint in evaluation.endpoints.items()}
    tasks = {split: len(tasks) for split, tasks in evaluation.task_suite.splits.items()}
    sharing = {"sharing": evaluation.task_suite.sharing} if evaluation.task_suite.sharing else {}
    return {"seed": evaluation.recipe.seed, **models, "tasks": tasks, **sharing}


def conversation_row(row: Mapping[str, Any], rollout: "Rollout") -> dict[str, Any]:
    """A trial's conversation."""
    from sgcd.storage.atomic import SCHEMA

    trial_key = {name: row[name] for name in ("split", "mode", "task", "trial", "success", "broken")}
    return {"schema": SCHEMA, **trial_key, "messages": list(rollout.messages)}


def no_trials_error(recipe: "Recipe") -> EnvironmentFault:
    return EnvironmentFault(f"environment: there are no {recipe.evaluation.split} tasks, or no trials of them to play")


def print_evaluation(summary: Mapping[str, Any], as_json: bool) -> None:
    """Print the evaluation of a policy or of a model behind an endpoint; one in which all broke is an EmptyResult."""
    from sgcd.measure.summary import unmeasured_reason

    no_result = unmeasured_reason(summary)
    if as_json:
        print_json({**summary, "no_result": no_result or None})
    else:
        print_evaluation_tables(summary)
    if no_result:
        raise EmptyResult(no_result)


def print_evaluation_tables(summary: Mapping[str, Any]) -> None:
    from sgcd.measure.health import endpoint_failure_warnings
    from sgcd.show.tables import describe_model_usage, evaluation_remarks, evaluation_table
    from sgcd.storage.metrics import EndpointUsage

    results_console().print(evaluation_table(summary))
    endpoint_usages = {role: EndpointUsage(**usage) for role, usage in summary.get("endpoints", {}).items()}
    lines: Sequence[str] = [
        *(f"INVALID: {reason}" for reason in summary["invalid"]),
        *evaluation_remarks(summary),
        *(
            line
            for role, usage in endpoint_usages.items()
            for line in (*endpoint_failure_warnings([usage], role), *describe_model_usage(role, [usage]))
        ),
    ]
    for line in lines:
        results_console().print(line, soft_wrap=True)
