"""sgcd study: trains the arms of a study on the same seeds, and compares them."""

from pathlib import Path
from typing import Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import EmptyResult

study_app = typer.Typer(**TYPER_OPTIONS)
JobsOption = Annotated[int, typer.Option(min=1, help="Runs at the same time.")]


@study_app.command()
def study(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.")],
    runs: Annotated[Path | None, typer.Option(help="The study's folder; runs/NAME by default.")] = None,
    jobs: JobsOption = 1,
    json: JsonFlag = False,
) -> None:
    """Train the arms of a study on the same seeds and compare them, with intervals and corrected p-values.

    A study that was stopped goes on by the same command. Every run is a folder of `sgcd train`.
    """
    run_and_print(path, runs or Path("runs") / path.stem, jobs=jobs, as_json=json)


def run_and_print(path: Path, folder: Path, *, jobs: int, as_json: bool) -> None:
    """Run a study and print its result, or say how to go on where it is stopped."""
    from sgcd.show.arms.tables import render_terminal
    from sgcd.study.arms.run_study import run_study

    console = progress_console()
    try:
        result = run_study(path, folder, jobs=jobs, report=lambda line: console.print(line, soft_wrap=True))
    except KeyboardInterrupt:
        console.print(f"stopped; to go on, repeat the command; the runs are in {folder}", soft_wrap=True)
        raise typer.Exit(130) from None
    if as_json:
        print_json(result)
    else:
        for part in render_terminal(result):
            results_console().print(part, soft_wrap=isinstance(part, str))
        results_console().print(f"pictures and the same as Markdown and JSON: {folder}", soft_wrap=True)
    if result["runs"]["finished"] == 0:
        raise EmptyResult(f"{folder}: none of {result['runs']['planned']} runs has a result")
