"""sgcd report: a run's folder as one page."""

from pathlib import Path
from typing import Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS
from sgcd.cli.output import results_console

report_app = typer.Typer(**TYPER_OPTIONS)


@report_app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder; the run may still be in progress.")],
    step: Annotated[list[int] | None, typer.Option(metavar="N ...", help="Steps whose tokens the page shows.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; RUN/report.html by default.")] = None,
) -> None:
    """Show a run on one page: its curves, and which tokens earned the credit.

    The page is one file that needs no network. Without --step it shows the first step, the last and two between.
    """
    from sgcd.show.report import write_report

    results_console().print(f"report: {write_report(run, step or [], out)}", soft_wrap=True)
