"""sgcd evaluate RECIPE: held-out tasks with a chat model behind an endpoint, without torch; prints any evaluation."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import EmptyResult, EnvironmentFault

if TYPE_CHECKING:
    from sgcd.build_tasks import EndpointEvaluation
    from sgcd.measure.trial_rows import TrialRow
    from sgcd.recipe.schema import Recipe
    from sgcd.records import Rollout


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
    return {"seed": evaluation.recipe.seed, **models, "tasks": tasks}


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
