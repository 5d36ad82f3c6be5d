"""sgcd compare: runs against runs on the same held-out tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgcd.cli.answer import print_json, results
from sgcd.measure import compare as measured
from sgcd.show.tables import comparison_table


def compare(runs: Sequence[str], against: Sequence[str], split: str | None, as_json: bool) -> None:
    compared = measured.compare([find(run, split) for run in runs], [find(run, split) for run in against])
    if as_json:
        print_json(compared)
    else:
        show(compared)


def show(compared: dict[str, Any]) -> None:
    results().print(comparison_table(compared))
    for run in [*compared["a"], *compared["b"]]:
        for reason in run["invalid"]:
            results().print(f"INVALID: {run['run']}: {reason}", soft_wrap=True)
    for mode, both in compared["modes"].items():
        part = both["overall"]
        how = "; ".join(filter(None, (part["difference"]["kind"] or part["difference"]["reason"], part["test"])))
        left_out = f"; {both['left_out']} tasks left out, because every trial broke" if both["left_out"] else ""
        results().print(f"{mode}: {how}{left_out}", soft_wrap=True)


def find(run: str, split: str | None) -> measured.Evaluated:
    """RUN is the latest evaluation of a run, RUN@STEP the one of that step."""
    path, _, step = run.rpartition("@")
    if path and step.isdecimal() and not Path(run).exists():
        return measured.load(Path(path), split, int(step))
    return measured.load(Path(run), split)
