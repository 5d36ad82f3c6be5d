"""sgcd lab: the demo on a laptop's CPU, and its warm starts."""

from itertools import count
from pathlib import Path

import sgcd
from sgcd.cli.answer import print_json, progress, results
from sgcd.cli.training import begin
from sgcd.show.tables import interval, number


def demo(as_json: bool) -> None:
    folder = next(path for number in count(1) if not (path := Path("runs") / f"lab-grpo-{number}").exists())
    begin(recipe(), [], folder, as_json)


def recipe() -> Path:
    """recipes/lab/grpo.yaml: in the package when it was installed from a wheel, else beside the sources."""
    package = Path(sgcd.__file__).parent
    inside = package / "recipes" / "lab" / "grpo.yaml"
    return inside if inside.is_file() else package.parents[1] / "recipes" / "lab" / "grpo.yaml"


def warm_start(names: list[str], out: Path | None, as_json: bool) -> None:
    from sgcd.lab.start import rebuild

    console = progress()
    gates = rebuild(names, out, lambda said: console.print(said, soft_wrap=True))
    if as_json:
        print_json({"schema": 1, "gates": gates})
    for name, gate in {} if as_json else gates.items():
        categories = ", ".join(f"{category} {number(rate)}" for category, rate in gate["categories"].items())
        results().print(f"{name}: sampled {interval(gate['sampled'])} ({categories})", soft_wrap=True)
