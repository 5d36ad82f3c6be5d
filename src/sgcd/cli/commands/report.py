"""sgcd report: a run's folder as one page."""

from collections.abc import Sequence
from pathlib import Path

from sgcd.cli.output import results_console


def run_report(run: Path, steps: Sequence[int], out: Path | None) -> None:
    from sgcd.show.report import write_report as write

    results_console().print(f"report: {write(run, steps, out)}", soft_wrap=True)
