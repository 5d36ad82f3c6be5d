"""sgcd report: a run's folder as one page."""

from pathlib import Path
from typing import Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS
from sgcd.cli.output import results_console
from sgcd.errors import FolderError, RecipeError

report_app = typer.Typer(**TYPER_OPTIONS)


@report_app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder; the run may still be in progress.")],
    step: Annotated[list[int] | None, typer.Option(metavar="N ...", help="Steps whose tokens the page shows.")] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another run, to be shown side by side with this one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; RUN/report.html by default.")] = None,
) -> None:
    """Show a run on one page: its curves, and which tokens earned the credit.

    The page is one file that needs no network. Without --step it shows the first step, the last and two between. With
    --against it holds both runs side by side, in RUN/report-against-NAME.html.
    """
    from sgcd.show.report import write_report
    from sgcd.show.side_by_side import write_pair

    if against is not None:
        if step:
            raise RecipeError("--step: not together with --against; give one of them")
        results_console().print(f"report: {write_pair(run, against, out)}", soft_wrap=True)
        return
    if (run / "completions").is_dir() and not (run / "recipe.yaml").is_file():
        raise FolderError(
            f"{run}: is no run's folder; TRL's trainer has logged rollouts in it, and a page of them is made by "
            f"sgcd credit {run / 'completions'} --no-score"
        )
    results_console().print(f"report: {write_report(run, step or [], out)}", soft_wrap=True)
