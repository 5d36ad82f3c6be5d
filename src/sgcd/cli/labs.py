"""sgcd lab: the demo on a laptop's CPU, and its warm starts."""

from itertools import count
from pathlib import Path
from typing import Any

import sgcd
from sgcd.cli import comparing
from sgcd.cli.answer import print_json, progress, results
from sgcd.cli.training import begin, show
from sgcd.measure.compare import compare
from sgcd.measure.compare import load as evaluated
from sgcd.show.tables import interval, number

METHODS = ("grpo", "sgcd")


def demo(as_json: bool) -> None:
    """Both methods from the same start with the same seed, each in a folder of its own, and one against the other."""
    from sgcd.show.report import report

    number = next(n for n in count(1) if not any(folder(method, n).exists() for method in METHODS))
    runs: dict[str, Any] = {}
    for method in METHODS:
        runs[method] = begin(recipe(method), [], folder(method, number))
        if not as_json:
            results().print(f"\n{method}")
            show(runs[method])
    plain, dense = (evaluated(folder(method, number)) for method in METHODS)
    compared = compare([dense], [plain])
    reports = {method: str(report(folder(method, number))) for method in METHODS}
    if as_json:
        print_json({"schema": 1, "runs": runs, "comparison": compared, "reports": reports})
        return
    results().print()
    comparing.show(compared)
    for method, where in reports.items():
        results().print(f"report of {method}: {where}", soft_wrap=True)


def folder(method: str, number: int) -> Path:
    return Path("runs") / f"lab-{method}-{number}"


def recipe(method: str) -> Path:
    """recipes/lab/METHOD.yaml: in the package when it was installed from a wheel, else beside the sources."""
    package = Path(sgcd.__file__).parent
    inside = package / "recipes" / "lab" / f"{method}.yaml"
    return inside if inside.is_file() else package.parents[1] / "recipes" / "lab" / f"{method}.yaml"


def warm_start(names: list[str], out: Path | None, as_json: bool) -> None:
    from sgcd.lab.start import rebuild

    console = progress()
    gates = rebuild(names, out, lambda said: console.print(said, soft_wrap=True))
    if as_json:
        print_json({"schema": 1, "gates": gates})
    for name, gate in {} if as_json else gates.items():
        categories = ", ".join(f"{category} {number(rate)}" for category, rate in gate["categories"].items())
        results().print(f"{name}: sampled {interval(gate['sampled'])} ({categories})", soft_wrap=True)
