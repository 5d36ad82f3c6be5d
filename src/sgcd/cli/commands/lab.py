"""sgcd lab: the demo on a laptop's CPU, and its warm starts."""

from itertools import count
from pathlib import Path
from typing import Any

import sgcd
from sgcd.cli.commands import compare as comparing
from sgcd.cli.commands.train import print_run_summary, start_run
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.measure.compare import compare_evaluations
from sgcd.measure.compare import load_evaluation as evaluated
from sgcd.show.tables import format_interval, format_number
from sgcd.storage.atomic import SCHEMA

DEMO_METHODS = ("grpo", "sgcd")


def run_demo(as_json: bool) -> None:
    """Both methods from the same start with the same seed, each in a folder of its own, and one against the other."""
    from sgcd.show.report import write_report

    demo_number = next(n for n in count(1) if not any(demo_run_path(method, n).exists() for method in DEMO_METHODS))
    runs: dict[str, Any] = {}
    for method in DEMO_METHODS:
        runs[method] = start_run(lab_recipe_path(method), [], demo_run_path(method, demo_number))
        if not as_json:
            results_console().print(f"\n{method}")
            print_run_summary(runs[method])
    grpo_evaluation, sgcd_evaluation = (evaluated(demo_run_path(method, demo_number)) for method in DEMO_METHODS)
    compared = compare_evaluations([sgcd_evaluation], [grpo_evaluation])
    reports = {method: str(write_report(demo_run_path(method, demo_number))) for method in DEMO_METHODS}
    if as_json:
        print_json({"schema": SCHEMA, "runs": runs, "comparison": compared, "reports": reports})
        return
    results_console().print()
    comparing.print_comparison(compared)
    for method, report_path in reports.items():
        results_console().print(f"report of {method}: {report_path}", soft_wrap=True)


def demo_run_path(method: str, number: int) -> Path:
    return Path("runs") / f"lab-{method}-{number}"


def lab_recipe_path(method: str) -> Path:
    """recipes/lab/METHOD.yaml: in the package when it was installed from a wheel, else beside the sources."""
    package = Path(sgcd.__file__).parent
    inside = package / "recipes" / "lab" / f"{method}.yaml"
    return inside if inside.is_file() else package.parents[1] / "recipes" / "lab" / f"{method}.yaml"


def run_warm_start(names: list[str], out: Path | None, as_json: bool) -> None:
    from sgcd.lab.warm_starts import build_warm_starts

    console = progress_console()
    gates = build_warm_starts(names, out, lambda message: console.print(message, soft_wrap=True))
    if as_json:
        print_json({"schema": SCHEMA, "gates": gates})
    for name, gate in {} if as_json else gates.items():
        categories = ", ".join(f"{category} {format_number(rate)}" for category, rate in gate["categories"].items())
        results_console().print(f"{name}: sampled {format_interval(gate['sampled'])} ({categories})", soft_wrap=True)
