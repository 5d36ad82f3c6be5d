"""The command `sgcd`: finds the command that was typed, loads its file, and turns errors into one line and a code."""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sgcd.cli.options import MULTI_VALUE_OPTIONS, TYPER_OPTIONS
from sgcd.cli.output import ProgressHandler
from sgcd.errors import EmptyResult, SgcdError

_APPS = {
    "init": "init:init_app",
    "check": "check:check_app",
    "collect": "collect:collect_app",
    "sft": "sft:sft_app",
    "train": "train:train_app",
    "study": "study:study_app",
    "evaluate": "evaluate:evaluate_app",
    "compare": "compare:compare_app",
    "credit": "credit:credit_app",
    "report": "show.report:report_app",
    "watch": "show.watch:watch_app",
    "plot": "show.plot:plot_app",
    "bundle": "show.bundle:bundle_app",
    "bench": "bench:bench_app",
    "lab": "lab.app:lab_app",
    "references": "references:references_app",
    "setup": "setup:setup_app",
    "methods": "methods:methods_app",
}
"""Each command's file in cli/commands/, and the Typer app in it."""
_EXTRA_FOR_MODULE = {
    "torch": "train",
    "transformers": "train",
    "tokenizers": "train",
    "openai": "llm",
    "websockets": "openenv",
}
"""Module -> the extra that installs it."""
UsageError: Any = typer.BadParameter.__base__  # newer versions of typer include click, older ones depend on it


class LazyGroup(TyperGroup):
    """Loads a command's file when the command runs or its help is listed."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = dict.fromkeys(_APPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _APPS and self.commands[cmd_name] is None:
            module, _, app_name = _APPS[cmd_name].partition(":")
            command_app = getattr(import_module(f"sgcd.cli.commands.{module}"), app_name)
            self.commands[cmd_name] = typer.main.get_command(command_app)
        return self.commands.get(cmd_name)


app = typer.Typer(name="sgcd", cls=LazyGroup, no_args_is_help=True, **TYPER_OPTIONS | {"add_completion": True})


def print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"sgcd {version('sgcd')}")
        raise typer.Exit


@app.callback()
def root_callback(
    _: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train tool-use agents, and see which tokens earned the credit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, as docs/command-line.md lists them. A bug is a traceback."""
    logger, handler = logging.getLogger("sgcd"), ProgressHandler()
    logger.addHandler(handler)
    try:
        expanded = expand_multi_value_options(sys.argv[1:] if arguments is None else arguments)
        return app(args=expanded, prog_name="sgcd", standalone_mode=False) or 0
    except EmptyResult as error:
        print_refusal(str(error))
        return 1
    except SgcdError as error:
        return print_refusal(str(error))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_FOR_MODULE:
            raise
        return print_refusal(
            f"{error.name} is not installed, and this command needs it: in a checkout of sgcd, pip install "
            f"'.[{_EXTRA_FOR_MODULE[error.name]}]'"
        )
    except UsageError as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # no command was typed
            print(message)
            return 2
        return print_refusal(f"{message} (see {error.ctx.command_path if error.ctx else 'sgcd'} --help)")
    except typer.Abort:  # Ctrl-C, in some versions of typer; in others it is a code already
        return 130
    finally:
        logger.removeHandler(handler)


def expand_multi_value_options(arguments: Sequence[str]) -> list[str]:
    """Turn --against A B into --against A --against B, since Typer's options take one value at a time."""
    words: list[str] = []
    option = ""
    for word in arguments:
        if word.startswith("-"):
            option = word if word in MULTI_VALUE_OPTIONS else ""
        elif option and words[-1] != option:
            words.append(option)
        words.append(word)
    return words


def print_refusal(message: str) -> int:
    print(f"sgcd: {' '.join(message.split())}", file=sys.stderr)
    return 2
