"""sgcd plot: pictures of runs for a paper."""

from pathlib import Path
from typing import Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS
from sgcd.cli.output import results_console
from sgcd.errors import RecipeError

plot_app = typer.Typer(**TYPER_OPTIONS)


@plot_app.command()
def plot(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN ...", help="Folders of runs, a line for each.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for the pictures; RUN/plots by default.")] = None,
) -> None:
    """Draw runs over their steps as SVG and PNG: the use of tools, the progress, and the costs of credit.

    Tool use and progress are the paper's Figures 2 and 3, its appendix D.
    """
    if not runs:
        raise RecipeError("which runs? sgcd plot RUN, or sgcd plot RUN RUN --out FOLDER")
    draw_plots(runs, out or runs[0] / "plots")


def draw_plots(runs: list[Path], out: Path) -> None:
    from sgcd.show.plots.trajectories import draw_trajectories
    from sgcd.storage.atomic import write_atomic, writing

    pictures = draw_trajectories(runs)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        write_atomic(out / name, content)
        results_console().print(f"picture: {out / name}", soft_wrap=True)
