"""sgcd study: trains the arms of a study on the same seeds, and compares them."""

from pathlib import Path
from typing import Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import progress_console

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
    from sgcd.study.arms.run_study import run_study

    folder = runs or Path("runs") / path.stem
    console = progress_console()
    try:
        run_study(path, folder, jobs=jobs, report=lambda line: console.print(line, soft_wrap=True))
    except KeyboardInterrupt:
        console.print(f"stopped; to go on: sgcd study {path} --runs {folder}", soft_wrap=True)
        raise typer.Exit(130) from None
