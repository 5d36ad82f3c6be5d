"""sgcd bundle: a run as one archive to share."""

from pathlib import Path
from typing import Annotated

import typer

from sgcd.cli.options import TYPER_OPTIONS
from sgcd.cli.output import results_console

bundle_app = typer.Typer(**TYPER_OPTIONS)


@bundle_app.command()
def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path | None, typer.Option(help="The archive; RUN.tar.gz by default.")] = None,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="Leave out rollouts, references, credit and the report.")
    ] = False,
) -> None:
    """Pack a run to share it: recipe, metrics, evaluations, rollouts, references, credit and report, without weights.

    Every text is searched for keys and tokens first, and nothing is written where one is found. Texts of benchmarks
    that may not be shared are left out.
    """
    bundle_run(run, out or run.with_name(f"{run.resolve().name}.tar.gz"), has_texts=not no_texts)


def bundle_run(run: Path, out: Path, *, has_texts: bool) -> None:
    from sgcd.storage.bundle import write_bundle

    bundled = write_bundle(run, out, has_texts=has_texts)
    console = results_console()
    for note in bundled.notes:
        console.print(note, soft_wrap=True)
    size = bundled.path.stat().st_size / 1e6
    console.print(f"bundle: {bundled.path}, {len(bundled.files)} files, {size:.1f} MB", soft_wrap=True)
