"""The verbs a person types; each takes its heavy imports only when it is called."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from sgcd.errors import SgcdError

_EXTRA_FOR_MODULE = {"torch": "train", "transformers": "train", "tokenizers": "train", "openai": "llm"}
"""What the extra `train` brings."""
_MULTI_VALUE_OPTIONS = ("--against", "--step")
"""Options that take all the words that follow."""
UsageError: Any = typer.BadParameter.__base__  # newer versions of typer carry click with them, older ones ask for it

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on standard output and nothing else.")]
RecipeWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="RECIPE KEY=VALUE", help="A recipe's file, and keys to set, such as optimizer.lr=1e-4."),
]
SplitOption = Annotated[Literal["dev", "test"] | None, typer.Option(help="Which held-out tasks.")]
RunArguments = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Runs; RUN@STEP is an earlier evaluation of one.")
]

_TYPER_OPTIONS: Any = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(name="sgcd", no_args_is_help=True, **_TYPER_OPTIONS)
lab_app = typer.Typer(invoke_without_command=True, **_TYPER_OPTIONS)
app.add_typer(lab_app, name="lab")
references_app = typer.Typer(
    no_args_is_help=True, help="What the teacher was shown of a run's siblings.", **_TYPER_OPTIONS
)
app.add_typer(references_app, name="references")


class CommandWithKeys(TyperCommand):
    """A verb whose help ends with the keys of a recipe."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from sgcd.recipe.keys import list_keys
        from sgcd.recipe.schema import Recipe

        definitions = [
            (key.path, f"{key.description} Expects {key.expected}.") for key in list_keys(Recipe) if not key.is_section
        ]
        with formatter.section("Keys"):
            formatter.write_dl(definitions)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all went well, 2 with one line for what a person can put right, 130 when stopped; a bug is a traceback."""
    try:
        expanded = expand_multi_value_options(sys.argv[1:] if arguments is None else arguments)
        return app(args=expanded, prog_name="sgcd", standalone_mode=False) or 0
    except SgcdError as error:
        return print_refusal(str(error))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_FOR_MODULE:
            raise
        return print_refusal(
            f"{error.name} is not installed, and this verb needs it: pip install "
            f"'sgcd[{_EXTRA_FOR_MODULE[error.name]}]'"
        )
    except UsageError as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # nothing was typed: the answer is the help
            print(message)
            return 2
        return print_refusal(f"{message} (see {error.ctx.command_path if error.ctx else 'sgcd'} --help)")


def expand_multi_value_options(arguments: Sequence[str]) -> list[str]:
    """--against A B as --against A --against B, since an option takes one value at a time."""
    words: list[str] = []
    option = ""
    for word in arguments:
        if word.startswith("-"):
            option = word if word in _MULTI_VALUE_OPTIONS else ""
        elif option and words[-1] != option:
            words.append(option)
        words.append(word)
    return words


def print_refusal(message: str) -> int:
    print(f"sgcd: {' '.join(message.split())}", file=sys.stderr)
    return 2


@app.callback()
def root_callback() -> None:
    """Train tool-use agents, and see which tokens deserved the credit."""


@app.command(cls=CommandWithKeys)
def check(words: RecipeWords = None, json: JsonFlag = False) -> None:
    """Say what a recipe would run; train nothing.

    Policy and environment are loaded, and the first task is played once.
    """
    from sgcd.cli.commands import check as checking

    checking.run_check(words or [], json)


@app.command(cls=CommandWithKeys)
def train(
    run: Annotated[Path, typer.Option(help="The run's folder: a new one, or with --resume the one to go on with.")],
    words: RecipeWords = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped, to the bit.")] = False,
    json: JsonFlag = False,
) -> None:
    """Train a policy, or go on with a run."""
    from sgcd.cli.commands import train as training

    training.run_train(words or [], run, resume, json)


@app.command()
def evaluate(
    what: Annotated[
        Path, typer.Argument(metavar="RUN_OR_POLICY_OR_RECIPE", help="A run's folder, a policy's, or a recipe's file.")
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="With a recipe's file: keys of it to set.")
    ] = None,
    split: SplitOption = None,
    trials: Annotated[int | None, typer.Option(min=0, help="Sampled trials of each task.")] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="How many tasks, from the first on.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="For a policy's folder: the recipe of its environment.")] = None,
    run: Annotated[Path | None, typer.Option(help="With a recipe's file: a new folder to keep it in.")] = None,
    json: JsonFlag = False,
) -> None:
    """Play held-out tasks with a trained policy, or with any chat model.

    What is not given is as the recipe has it. The rows of a run's policy join the run's evaluation.jsonl. With a
    recipe's file its evaluation.model is played, a model behind an endpoint with native tool calls, and no policy.
    """
    from sgcd.cli.commands import evaluate as evaluating

    evaluating.run_evaluate(what, words or [], split, trials, tasks, recipe, run, json)


@app.command()
def compare(
    runs: RunArguments,
    against: Annotated[list[str], typer.Option(metavar="RUN ...", help="The runs that they are compared with.")],
    split: SplitOption = None,
    json: JsonFlag = False,
) -> None:
    """Compare runs by their held-out tasks, with intervals.

    sgcd compare A1 A2 --against B1 B2 takes the latest evaluation of each; sgcd compare A --against A@0 compares a run
    with its own start.
    """
    from sgcd.cli.commands import compare as comparing

    comparing.run_compare(runs, against, split, json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, also of one that is still going on.")],
    step: Annotated[list[int] | None, typer.Option(metavar="N ...", help="Steps whose tokens to show.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it; RUN/report.html when not given.")] = None,
) -> None:
    """Show a run on one page: its curves, and which tokens deserved the credit.

    The page is one file that asks nothing of the network. Without --step it shows the first step, the last and two
    between.
    """
    from sgcd.cli.commands import report as reporting

    reporting.run_report(run, step or [], out)


@references_app.callback()
def references_callback() -> None:
    """What the teacher was shown of a run's siblings, and how much it matters."""


@references_app.command("show")
def show_reference(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, with the rollouts that it has kept.")],
    task: Annotated[str | None, typer.Option(help="Which task; the first of the step when not given.")] = None,
    step: Annotated[int | None, typer.Option(min=1, help="Which step; the last when not given.")] = None,
) -> None:
    """Show one group as it was contrasted: what the writer read, what it wrote, where it went, what it credited."""
    from sgcd.cli.commands import references_show as reading

    reading.print_reference(run, task, step)


@references_app.command("compare")
def compare_references(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, with the rollouts that it has kept.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys of its recipe to set, such as those of another writer."),
    ] = None,
    groups: Annotated[int, typer.Option(min=2, help="How many groups of siblings, from the latest step back.")] = 24,
    trials: Annotated[int, typer.Option(min=0, help="In the lab: plays of each task with each reference.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the errors that are put in, and of all that is played.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Write a run's references anew, in other ways, and see how much of the credit stays.

    Other writers and parts of the text, one pair of siblings, each sibling left out, the next task's reference, and
    more and more wrong statements: overlap of credited tokens, rank correlation of weights, and in the lab success
    with the reference, with intervals.
    """
    from sgcd.cli.commands import references_compare as rewriting

    rewriting.run_references_compare(run, keys or [], groups, trials, seed, json)


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count, after three that warm up.")] = 5,
    tokens: Annotated[int, typer.Option(min=1, help="Rows of B1 and B2.")] = 512,
    json: JsonFlag = False,
) -> None:
    """Measure what scoring costs, as ratios in one run.

    Takes about ten minutes on an idle machine, needs 8 GB of memory, and trains nothing.
    """
    from sgcd.cli.commands import bench as benching

    benching.run_bench(rounds, tokens, json)


@lab_app.callback()
def demo(context: typer.Context, json: JsonFlag = False) -> None:
    """Train a tiny agent, here and now, in minutes.

    Runs recipes/lab/grpo.yaml and recipes/lab/sgcd.yaml from the same start into new folders under runs/, and compares
    them.
    """
    if context.invoked_subcommand is None:
        from sgcd.cli.commands import lab as labs

        labs.run_demo(json)


@lab_app.command("warm-start")
def warm_start(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Which; all when none is named.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to put them; into the package when not given.")] = None,
    json: JsonFlag = False,
) -> None:
    """Make the lab's warm starts anew, from demonstrations."""
    from sgcd.cli.commands import lab as labs

    labs.run_warm_start(names or [], out, json)


@lab_app.command("truth")
def truth(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="START KEY=VALUE",
            help="Warm starts (plain, chatty, chatty-shared; plain when none is named) or folders of policies, and "
            "keys of the method to set, such as method.segments.quiet_tokens=1.",
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="A method of recipes/lab that locates credit.")] = "sgcd",
    rollouts: Annotated[
        int | None, typer.Option(min=16, help="Rollouts held against the truth, in groups of 8.")
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=2, help="Mixed held-out tasks for success with a reference.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is played.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Hold a method against the true credit of every decision.

    Plays on from each undecided token, many times, and says how well divergence and weights find the tokens that
    decide, whether references help, where the credit lies, and how much the gradients of batches agree. Unless told
    otherwise a plain world takes about five minutes on two cores, a chatty one fifteen.
    """
    from sgcd.cli.commands import truth as truths

    truths.run_truth(words or [], method, rollouts, tasks, seed, json)
