"""sgcd references: the group of the commands that show and compare a run's references."""

import typer

from sgcd.cli.commands.references_compare import compare_references
from sgcd.cli.commands.references_show import show_reference
from sgcd.cli.options import TYPER_OPTIONS

references_app = typer.Typer(no_args_is_help=True, **TYPER_OPTIONS)
references_app.command("show")(show_reference)
references_app.command("compare")(compare_references)


@references_app.callback()
def references_callback() -> None:
    """Show the references that the teacher read, and measure how much they matter."""
