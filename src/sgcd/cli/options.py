"""Options that several commands share, and the help that lists the recipe's keys."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

TYPER_OPTIONS: Any = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
MULTI_VALUE_OPTIONS = ("--against", "--step")
"""Options that take all the words after them."""


def complete_key(incomplete: str) -> list[str]:
    """The keys that begin with what was typed; none for the name of a file, which the shell then completes."""
    from sgcd.recipe.keys import list_keys
    from sgcd.recipe.schema import Recipe

    paths = dict.fromkeys(f"{key.path}=" for key in list_keys(Recipe) if not key.is_section)
    return [path for path in paths if incomplete and path.startswith(incomplete)]


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
RecipeWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE KEY=VALUE",
        help="A recipe's file, and keys to set, such as optimizer.lr=1e-4.",
        autocompletion=complete_key,
    ),
]
SplitOption = Annotated[
    Literal["dev", "test", "test_normal", "test_challenge"] | None, typer.Option(help="Which held-out tasks.")
]


class CommandWithKeys(TyperCommand):
    """A command whose help ends with the keys of a recipe."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from sgcd.recipe.keys import list_keys
        from sgcd.recipe.schema import Recipe

        definitions = [
            (key.path, f"{key.description} Expects {key.expected}.") for key in list_keys(Recipe) if not key.is_section
        ]
        with formatter.section("Keys"):
            formatter.write_dl(definitions)
