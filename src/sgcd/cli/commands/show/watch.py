"""sgcd watch: shows a run in the terminal, while it trains or afterwards."""

from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS
from sgcd.cli.output import results_console

if TYPE_CHECKING:
    from rich.console import Console

watch_app = typer.Typer(**TYPER_OPTIONS)
_SECONDS = 2.0
"""Between two looks at the folder."""


@watch_app.command()
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder; running, stopped or finished.")],
) -> None:
    """Watch a run: held-out success by category, reward, mixed groups, credit, tokens a second, the time left.

    It reads the run's folder, writes nothing, and ends with the run. Where the output is no terminal it prints once.
    """
    watch_run(run)


def watch_run(run: Path) -> None:
    from rich.live import Live

    from sgcd.show.watch import RunView, describe_resume, render_run

    console = results_console()
    view = RunView.read(run)
    if not console.is_terminal or not view.is_running:
        console.print(render_run(view))
        print_resume(console, describe_resume(view))
        return
    try:
        with Live(render_run(view), console=console, auto_refresh=False) as live:
            while view.is_running:
                sleep(_SECONDS)
                view = RunView.read(run)
                live.update(render_run(view), refresh=True)
        print_resume(console, describe_resume(view))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def print_resume(console: "Console", line: str) -> None:
    """The command that goes on with a stopped run, never broken by the terminal's width."""
    if line:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
