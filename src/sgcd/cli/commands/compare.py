"""sgcd compare: runs against runs on the same held-out tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgcd.cli.output import print_json, results_console
from sgcd.measure import compare as measured
from sgcd.show.tables import comparison_table


def run_compare(runs: Sequence[str], against: Sequence[str], split: str | None, as_json: bool) -> None:
    compared = measured.compare_evaluations(
        [load_compared_run(run, split) for run in runs], [load_compared_run(run, split) for run in against]
    )
    if as_json:
        print_json(compared)
    else:
        print_comparison(compared)


def print_comparison(compared: dict[str, Any]) -> None:
    results_console().print(comparison_table(compared))
    for run in [*compared["a"], *compared["b"]]:
        for reason in run["invalid"]:
            results_console().print(f"INVALID: {run['run']}: {reason}", soft_wrap=True)
    for mode, mode_comparison in compared["modes"].items():
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


def load_compared_run(run: str, split: str | None) -> measured.RunEvaluation:
    """RUN is the latest evaluation of a run, RUN@STEP the one of that step."""
    path, _, step = run.rpartition("@")
    if path and step.isdecimal() and not Path(run).exists():
        return measured.load_evaluation(Path(path), split, int(step))
    return measured.load_evaluation(Path(run), split)
