"""sgcd lab: the demo on a laptop's CPU, the lab's warm starts, and what is measured of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.commands.lab.demo import run_collapse, run_demo
from sgcd.cli.commands.lab.truth import truth
from sgcd.cli.commands.study import JobsOption, run_and_print
from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import RecipeError
from sgcd.recipe.load import shipped_path
from sgcd.storage.atomic import SCHEMA

if TYPE_CHECKING:
    from sgcd.lab.settings import LongDeskSettings

lab_app = typer.Typer(invoke_without_command=True, **TYPER_OPTIONS)


@lab_app.callback()
def demo(
    context: typer.Context,
    collapse: Annotated[
        bool, typer.Option("--collapse", help="Show how a teacher in the loss destroys the use of tools.")
    ] = False,
    control: Annotated[
        bool, typer.Option("--control", help="Run studies/control.yaml instead: an hour or more on one core.")
    ] = False,
    jobs: JobsOption = 1,
    json: JsonFlag = False,
) -> None:
    """Train a tiny agent on this machine, in minutes.

    Runs recipes/lab/grpo.yaml and recipes/lab/sgcd.yaml side by side, from the same start, into new folders under
    runs/, and compares them; then three recipes of recipes/lab/long-desk/, a world in which credit can matter. With
    --collapse it runs collapse-sdpo.yaml and collapse-sgcd.yaml instead: their teachers read a leak that was put in on
    purpose; one is imitated, the other weighs credit. With --control it runs a study: what do methods learn from the
    verifier, and what from their teacher alone?
    """
    if context.invoked_subcommand is not None:
        return
    if control:
        run_and_print(shipped_path("studies/control.yaml"), Path("runs/control"), jobs=jobs, as_json=json)
    elif collapse:
        run_collapse(as_json=json)
    else:
        run_demo(as_json=json)


@lab_app.command("warm-start")
def warm_start(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Which; all by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for them; the package's own by default.")] = None,
    json: JsonFlag = False,
) -> None:
    """Build the lab's warm starts from demonstrations."""
    from sgcd.lab.warm_starts import build_warm_starts
    from sgcd.show.tables import format_interval, format_number

    console = progress_console()
    gates = build_warm_starts(names or [], out, lambda message: console.print(message, soft_wrap=True))
    if json:
        print_json({"schema": SCHEMA, "gates": gates})
        return
    for name, gate in gates.items():
        if "categories" not in gate:
            print_desk_measurement(name, gate)
            continue
        categories = ", ".join(f"{category} {format_number(rate)}" for category, rate in gate["categories"].items())
        results_console().print(f"{name}: sampled {format_interval(gate['sampled'])} ({categories})", soft_wrap=True)


@lab_app.command("measure")
def measure(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[START] [KEY=VALUE ...]", help="A start of the long desk, or the folder of a policy."),
    ] = None,
    tasks: Annotated[int, typer.Option(min=8, help="Groups of four to play; the mixed ones are measured.")] = 64,
    held_out: Annotated[int, typer.Option(min=2, help="Rollouts whose decisions gradients are held against.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of all rollouts.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Measure how loud thinking is where decisions are learned, and what each weighting would gain.

    A start of the long desk by its name, long-desk-1 by default, or the folder of a policy that was trained there; keys
    such as environment.thinking=32 change the world. Takes some minutes on one core.
    """
    from sgcd.lab.long_desk.measure import DeskSizes
    from sgcd.lab.long_desk.starts import measure_desk_policy

    starts, keys = [word for word in words or [] if "=" not in word], [word for word in words or [] if "=" in word]
    start = starts[0] if starts else "long-desk-1"
    sizes = DeskSizes(tasks=tasks, held_out=held_out, seed=seed)
    console = progress_console()
    result = measure_desk_policy(start, load_desk_world(start, keys), sizes, console.print)
    if json:
        print_json({"schema": SCHEMA, "start": start, **result})
        return
    print_desk_measurement(start, result)


def load_desk_world(start: str, keys: Sequence[str]) -> "LongDeskSettings":
    """The world of a start, with keys of the environment set."""
    from sgcd.lab.long_desk.starts import DESK_STARTS
    from sgcd.lab.settings import LongDeskSettings
    from sgcd.recipe.load import lab_recipe_path, load_recipe

    foreign_key = next((key for key in keys if not key.startswith("environment.")), None)
    if foreign_key:
        raise RecipeError(
            f"lab measure: {foreign_key}: only keys of the world can be set, such as environment.read=true"
        )
    own = DESK_STARTS[start].world.model_dump(exclude={"name"}) if start in DESK_STARTS else {}
    own_keys = [f"environment.{key}={str(value).lower()}" for key, value in own.items()]
    environment = load_recipe(lab_recipe_path("long-desk/grpo"), [*own_keys, *keys]).environment
    if not isinstance(environment, LongDeskSettings):
        raise RecipeError("lab measure: environment.name: expected long_desk: no other world has verdicts by turn")
    return environment


def print_desk_measurement(start: str, measured: Mapping[str, Any]) -> None:
    from sgcd.show.study_tables import desk_tables

    results_console().print(f"\n{start}", style="bold")
    for part in desk_tables(measured):
        results_console().print(part, soft_wrap=isinstance(part, str))


lab_app.command("truth")(truth)
