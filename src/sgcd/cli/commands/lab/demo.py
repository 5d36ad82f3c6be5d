"""sgcd lab's runs: the demo in two worlds side by side, and the collapse."""

import json as jsonlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import typer

from sgcd.cli.commands.compare import print_comparison
from sgcd.cli.commands.train import print_run_summary
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.storage.atomic import SCHEMA

DEMO_METHODS = ("grpo", "sgcd")
DESK_METHODS = ("grpo", "sgcd", "by_turn")
COLLAPSE_RECIPES = ("collapse-sdpo", "collapse-sgcd")


def run_demo(as_json: bool) -> None:
    """Train both methods with the same seed, each in its own folder, and compare them; then three at the long desk."""
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
        desk_runs, differences = train_at_long_desk()
        desk = {"runs": desk_runs, "less_grpo": differences}
        print_json({"schema": SCHEMA, "runs": runs, "comparison": comparison, "reports": reports, "long_desk": desk})
        return
    results_console().print()
    print_comparison(comparison)
    for method, report_path in reports.items():
        results_console().print(f"report of {method}: {report_path}", soft_wrap=True)
    results_console().print(f"\n{demo_verdict(runs, comparison)}\n", soft_wrap=True)
    results_console().print(f"\n{desk_verdict(*train_at_long_desk())}", soft_wrap=True)


def train_at_long_desk() -> tuple[dict[str, Any], dict[str, Any]]:
    """The summaries of three runs at the long desk, and what each but GRPO's differs from it by at the end."""
    from sgcd.measure.compare import compare_evaluations, load_evaluation
    from sgcd.recipe.load import lab_recipe_path

    names = {method: f"long-desk-{method}" for method in DESK_METHODS}
    number = next_demo_number([*names.values()])
    paths = {method: demo_run_path(name, number) for method, name in names.items()}
    runs = train_side_by_side(
        {names[method]: (lab_recipe_path(f"long-desk/{method}"), path) for method, path in paths.items()}
    )
    evaluations = {method: load_evaluation(path) for method, path in paths.items()}
    differences = {
        method: compare_evaluations([evaluation], [evaluations["grpo"]])["modes"]["sampled"]["overall"]
        for method, evaluation in evaluations.items()
        if method != "grpo"
    }
    return {method: runs[name] for method, name in names.items()}, differences


def desk_verdict(runs: Mapping[str, Any], differences: Mapping[str, Any]) -> str:
    """One sentence on sampled success at the long desk: what each method reached, and which differ from GRPO."""
    from sgcd.measure.health import direction_of_change
    from sgcd.show.tables import format_interval, format_number

    ends = {
        method: [format_number(run[part]["modes"]["sampled"]["overall"]["value"]) for part in ("start", "end")]
        for method, run in runs.items()
    }
    reached = ", ".join(f"to {end} with {method}" for method, (_, end) in ends.items())
    words = {"rose": "above GRPO", "fell": "below GRPO"}
    compared = ", ".join(
        f"{method} is {words.get(direction_of_change(overall) or '', 'not told from GRPO')} "
        f"({format_interval(overall['difference'], '+')})"
        for method, overall in differences.items()
    )
    return (
        f"At the long desk, where four requests share one verdict, success went from {ends['grpo'][0]} {reached}; "
        f"{compared}. by_turn knows the verdict of each request; one seed says little: docs/results.md has the study."
    )


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
    """`sgcd train` in a process of its own, its progress behind `name`; returns the exit code and the JSON."""
    from sgcd.study.arms.train_process import run_train_process

    def show(line: str) -> None:
        progress_console().print(f"{name}  {line}", soft_wrap=True)

    finished = run_train_process([str(recipe), "--run", str(run), "--json"], show)
    return finished.exit_code, finished.output


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
