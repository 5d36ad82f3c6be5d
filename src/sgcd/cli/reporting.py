"""sgcd report: a run's folder as one page."""

from collections.abc import Sequence
from pathlib import Path

from sgcd.cli.answer import results


def report(run: Path, steps: Sequence[int], out: Path | None) -> None:
    from sgcd.show.report import report as write

    results().print(f"report: {write(run, steps, out)}", soft_wrap=True)
