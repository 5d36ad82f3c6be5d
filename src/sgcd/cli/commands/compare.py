"""sgcd compare: compares runs with other runs on the same held-out tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag, SplitOption
from sgcd.cli.output import print_json, results_console

if TYPE_CHECKING:
    from sgcd.measure.compare import RunEvaluation

compare_app = typer.Typer(**TYPER_OPTIONS)


@compare_app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Runs; RUN@STEP is a run's evaluation at STEP.")],
    against: Annotated[list[str], typer.Option(metavar="RUN ...", help="The runs to compare them with.")],
    split: SplitOption = None,
    json: JsonFlag = False,
) -> None:
    """Compare runs by their held-out tasks, with intervals.

    sgcd compare A1 A2 --against B1 B2 takes the latest evaluation of each; sgcd compare A --against A@0 compares a run
    with its own start.
    """
    comparison = compare_runs(runs, against, split)
    if json:
        print_json(comparison)
    else:
        print_comparison(comparison)


def compare_runs(runs: Sequence[str], against: Sequence[str], split: str | None) -> dict[str, Any]:
    from sgcd.measure.compare import compare_evaluations

    return compare_evaluations(
        [load_compared_run(run, split) for run in runs], [load_compared_run(run, split) for run in against]
    )


def load_compared_run(run: str, split: str | None) -> "RunEvaluation":
    """RUN is the latest evaluation of a run, RUN@STEP its evaluation at that step."""
    from sgcd.measure.compare import load_evaluation

    path, _, step = run.rpartition("@")
    if path and step.isdecimal() and not Path(run).exists():
        return load_evaluation(Path(path), split, int(step))
    return load_evaluation(Path(run), split)


def print_comparison(comparison: dict[str, Any]) -> None:
    from sgcd.show.tables import comparison_table

    results_console().print(comparison_table(comparison))
    for run in [*comparison["a"], *comparison["b"]]:
        for reason in run["invalid"]:
            results_console().print(f"INVALID: {run['run']}: {reason}", soft_wrap=True)
    for condition in comparison["differing_conditions"]:
        results_console().print(f"the difference is not of the policies alone: {condition}", soft_wrap=True)
    for mode, mode_comparison in comparison["modes"].items():
        overall = mode_comparison["overall"]
        method_text = "; ".join(
            filter(None, (overall["difference"]["kind"] or overall["difference"]["reason"], overall["test"]))
        )
        left_out = (
            f"; {mode_comparison['left_out']} tasks left out, because every trial broke"
            if mode_comparison["left_out"]
            else ""
        )
        results_console().print(f"{mode}: {method_text}{left_out}", soft_wrap=True)
