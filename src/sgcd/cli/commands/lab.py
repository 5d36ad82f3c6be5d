"""sgcd lab: the demo on a laptop's CPU, and the lab's warm starts."""

import json as jsonlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.commands.compare import print_comparison
from sgcd.cli.commands.study import JobsOption, run_and_print
from sgcd.cli.commands.train import print_run_summary
from sgcd.cli.commands.truth import truth
from sgcd.cli.options import TYPER_OPTIONS, JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import RecipeError
from sgcd.recipe.load import shipped_path
from sgcd.storage.atomic import SCHEMA

if TYPE_CHECKING:
    from sgcd.lab.settings import LongDeskSettings

DEMO_METHODS = ("grpo", "sgcd")
COLLAPSE_RECIPES = ("collapse-sdpo", "collapse-sgcd")
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
    runs/, and compares them. With --collapse it runs collapse-sdpo.yaml and collapse-sgcd.yaml instead: their teachers
    read a leak that was put in on purpose; one is imitated, the other weighs credit. With --control it runs a study:
    what do methods learn from the verifier, and what from their teacher alone?
    """
    if context.invoked_subcommand is not None:
        return
    if control:
        run_and_print(shipped_path("studies/control.yaml"), Path("runs/control"), jobs=jobs, as_json=json)
    elif collapse:
        run_collapse(as_json=json)
    else:
        run_demo(as_json=json)


def run_demo(as_json: bool) -> None:
    """Train both methods with the same seed, each in its own folder, and compare them."""
    from sgcd.measure.compare import compare_evaluations, load_evaluation
    from sgcd.recipe.load import lab_recipe_path
    from sgcd.show.report import write_report

    demo_number = next_demo_number(DEMO_METHODS)
    runs = train_side_by_side(
        {method: (lab_recipe_path(method), demo_run_path(method, demo_number)) for method in DEMO_METHODS}
    )
    if not as_json:
        for method, summary in runs.items():
            results_console().print(f"\n{method}")
            print_run_summary(summary)
    grpo_evaluation, sgcd_evaluation = (load_evaluation(demo_run_path(method, demo_number)) for method in DEMO_METHODS)
    comparison = compare_evaluations([sgcd_evaluation], [grpo_evaluation])
    reports = {method: str(write_report(demo_run_path(method, demo_number))) for method in DEMO_METHODS}
    if as_json:
        print_json({"schema": SCHEMA, "runs": runs, "comparison": comparison, "reports": reports})
        return
    results_console().print()
    print_comparison(comparison)
    for method, report_path in reports.items():
        results_console().print(f"report of {method}: {report_path}", soft_wrap=True)
    results_console().print(f"\n{demo_verdict(runs, comparison)}", soft_wrap=True)


def run_collapse(as_json: bool) -> None:
    """Train with the leaking teacher in the loss, and with the same teacher weighing credit; show tools and actions."""
    from sgcd.recipe.load import lab_recipe_path
    from sgcd.show.tool_course import course_table, describe_course, tool_course
    from sgcd.storage.run_folder import RunFolder

    number = next_demo_number(COLLAPSE_RECIPES)
    runs = train_side_by_side({name: (lab_recipe_path(name), demo_run_path(name, number)) for name in COLLAPSE_RECIPES})
    courses = {
        name: tool_course(RunFolder.open(demo_run_path(name, number)).read_evaluations(), "dev")
        for name in COLLAPSE_RECIPES
    }
    if as_json:
        print_json({"schema": SCHEMA, "runs": runs, "courses": courses})
        return
    for name, course in courses.items():
        results_console().print(course_table(name, course))
        results_console().print(f"{describe_course(name, course)}\n", soft_wrap=True)


def train_side_by_side(runs: Mapping[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Train each name's recipe in its folder, all at once; returns the summaries of the runs."""
    with ThreadPoolExecutor(len(runs)) as pool:
        finished = {name: pool.submit(train_in_process, name, *paths) for name, paths in runs.items()}
        try:
            results = {name: future.result() for name, future in finished.items()}
        except KeyboardInterrupt:  # each run has it too, and says how to go on
            raise typer.Exit(130) from None
    if not all(output for _, output in results.values()):
        raise typer.Exit(max(code for code, _ in results.values()))
    return {name: jsonlib.loads(output) for name, (_, output) in results.items()}


def train_in_process(name: str, recipe: Path, run: Path) -> tuple[int, str]:
    """`sgcd train` in a process with one thread, its progress behind `name`; returns the exit code and the JSON."""
    command = [sys.executable, "-m", "sgcd", "train", str(recipe), "--run", str(run), "--json"]
    with TemporaryFile("w+", encoding="utf-8") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment) as process:
            for line in process.stderr or ():
                progress_console().print(f"{name}  {line.rstrip()}", soft_wrap=True)
        output.seek(0)
        return process.returncode, output.read()


def demo_verdict(runs: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """One sentence on sampled success: what rose, what fell, and whether the methods differ beyond the interval."""
    from sgcd.measure.health import direction_of_change
    from sgcd.show.tables import format_interval, format_number

    changes, fallen = list[str](), list[str]()
    for method, run in runs.items():
        before, after, change = (run[part]["modes"]["sampled"] for part in ("start", "end", "change"))
        ends = f"from {format_number(before['overall']['value'])} to {format_number(after['overall']['value'])}"
        direction = direction_of_change(change["overall"]) or "did not clearly change"
        changes.append(f"{direction} {ends} with {method.upper()}")
        for name, category in change["categories"].items():
            if direction_of_change(category) == "fell":
                ends = [format_number(side["categories"][name]["value"]) for side in (before, after)]
                fallen.append(f"{name} fell from {ends[0]} to {ends[1]} with {method.upper()}")
    overall = comparison["modes"]["sampled"]["overall"]
    ahead = {"rose": "SGCD is ahead", "fell": "GRPO is ahead"}.get(direction_of_change(overall), "the two tie")
    return (
        f"Success on {comparison['split']} tasks {' and '.join(changes)}; {ahead} "
        f"(SGCD less GRPO: {format_interval(overall['difference'], '+')}); {', '.join(fallen) or 'no category fell'}."
    )


def next_demo_number(names: Sequence[str]) -> int:
    """The first number that no run of these has yet."""
    return next(number for number in count(1) if not any(demo_run_path(name, number).exists() for name in names))


def demo_run_path(method: str, number: int) -> Path:
    return Path("runs") / f"lab-{method}-{number}"


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
    read = [f"environment.read={str(DESK_STARTS[start].world.read).lower()}"] if start in DESK_STARTS else []
    environment = load_recipe(lab_recipe_path("long-desk/grpo"), [*read, *keys]).environment
    if not isinstance(environment, LongDeskSettings):
        raise RecipeError("lab measure: environment.name: expected long_desk: no other world has verdicts by turn")
    return environment


def print_desk_measurement(start: str, measured: Mapping[str, Any]) -> None:
    from sgcd.show.study_tables import desk_tables

    results_console().print(f"\n{start}", style="bold")
    for part in desk_tables(measured):
        results_console().print(part, soft_wrap=isinstance(part, str))


lab_app.command("truth")(truth)
