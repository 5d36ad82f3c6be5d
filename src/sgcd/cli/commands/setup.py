"""sgcd setup: installs a benchmark beside sgcd, in an environment of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.storage.atomic import SCHEMA

setup_app = typer.Typer(no_args_is_help=True, **TYPER_OPTIONS)


@setup_app.callback()
def setup() -> None:
    """Install a benchmark beside sgcd, in an environment of its own."""


@setup_app.command()
def airline(
    *,
    source: Annotated[
        Path, typer.Option("--from", metavar="DIR_OR_ARCHIVE", help="A checkout of tau2-bench, or a tar archive.")
    ],
    folder: Annotated[Path, typer.Option(help="Where its environment goes.")] = Path(".venv-airline"),
    json: JsonFlag = False,
) -> None:
    """Install tau2-bench v1.0.1 (airline and retail), check its data, and replay all gold calls.

    A recipe plays it with environment: {name: airline}.
    """
    from sgcd.act.environments.airline.setup import set_up_airline

    found = set_up_airline(source, folder, report_progress)
    print_found(found, f"tau2-bench {found['version']} is in {folder}", as_json=json)


@setup_app.command()
def bfcl(
    *,
    folder: Annotated[Path, typer.Option(help="Where its environment goes.")] = Path(".venv-bfcl"),
    json: JsonFlag = False,
) -> None:
    """Install the multi-turn tasks of BFCL from the Python index, and play all gold calls.

    A recipe plays them with environment: {name: bfcl}.
    """
    from sgcd.act.environments.bfcl.setup import set_up_bfcl

    found = set_up_bfcl(folder, report_progress)
    print_found(found, f"bfcl-eval {found['version']} is in {folder}", as_json=json)


@setup_app.command()
def appworld(
    *,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder data that `appworld download data` made.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where its environment goes.")] = Path(".venv-appworld"),
    json: JsonFlag = False,
) -> None:
    """Install AppWorld, check its data, and copy them without ground truth.

    Without --data the command installs the package and says how its data are to be had. A recipe plays the tasks with
    environment: {name: appworld}.
    """
    from sgcd.act.environments.appworld.setup import set_up_appworld

    found = set_up_appworld(folder, data, report_progress)
    sizes = found["splits"] or {"no data": "yet"}
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    print_found(found, f"{found['package']} is in {folder}: {listed}", as_json=json)


@setup_app.command()
def textworld(
    *,
    folder: Annotated[Path, typer.Option(help="Where its environment and the games go.")] = Path(".venv-textworld"),
    json: JsonFlag = False,
) -> None:
    """Install TextWorld from the Python index, make the games of each split, and play their walkthroughs.

    A recipe plays them with environment: {name: textworld}.
    """
    from sgcd.act.environments.textworld.setup import set_up_textworld

    found = set_up_textworld(folder, report_progress)
    print_found(found, f"{found['games']} games are in {folder}", as_json=json)


def report_progress(line: str) -> None:
    progress_console().print(line, soft_wrap=True)


def print_found(found: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    """What a setup found, as one JSON object or in a sentence."""
    if as_json:
        print_json({"schema": SCHEMA, **found})
    else:
        results_console().print(sentence, soft_wrap=True)
