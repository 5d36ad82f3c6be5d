"""Ends an evaluation of a policy or of a model behind an endpoint: its rows are stored, and its tables printed."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import EmptyResult

if TYPE_CHECKING:
    from sgcd.endpoint.client import Endpoint
    from sgcd.measure.progress import EvaluationProgress
    from sgcd.measure.trial_rows import TrialRow


@contextmanager
def keep_progress(progress: "EvaluationProgress | None", new_folder: Path | None) -> Generator[None, None, None]:
    """Say how to go on where the body is stopped. A new folder without a trial is removed."""
    from sgcd.storage.atomic import remove

    try:
        yield
    except BaseException as problem:
        if progress and progress.num_trials:
            progress_console().print(
                f"stopped; to go on: sgcd evaluate {progress.folder.path} --resume", soft_wrap=True
            )
            if isinstance(problem, KeyboardInterrupt):
                raise typer.Exit(130) from None
        elif new_folder:
            remove(new_folder)
        raise


def finish_evaluation(
    rows: "list[TrialRow]",
    progress: "EvaluationProgress | None",
    endpoints: "Mapping[str, Endpoint]",
    extras: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Store the rows and print them. Where all broke nothing was measured: the rows do not join the folder."""
    from sgcd.endpoint.client import pop_endpoint_metrics
    from sgcd.measure.cost import summarise_cost
    from sgcd.measure.summary import is_all_broken, summarise_evaluation

    summary = summarise_evaluation(rows)
    if progress and is_all_broken(summary):
        progress.discard()
    elif progress:
        progress.finish()
    cost = summarise_cost(rows, extras["seconds"], endpoints)
    usage = {name: part.to_json() for name, part in pop_endpoint_metrics(endpoints).items()}
    others = {name: value for name, value in extras.items() if name != "seconds"}
    print_evaluation({**summary, **others, **({"endpoints": usage} if usage else {}), "cost": cost}, as_json)


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
    from sgcd.show.tables import describe_cost, describe_model_usage, evaluation_remarks, evaluation_table
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
        describe_cost(summary["cost"]),
    ]
    for line in lines:
        results_console().print(line, soft_wrap=True)
