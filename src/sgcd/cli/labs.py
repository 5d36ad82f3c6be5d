"""sgcd lab: the demo on a laptop's CPU, and its warm starts."""

from itertools import count
from pathlib import Path

import sgcd
from sgcd.cli.training import begin


def demo(as_json: bool) -> None:
    folder = next(path for number in count(1) if not (path := Path("runs") / f"lab-grpo-{number}").exists())
    begin(recipe(), [], folder, as_json)


def recipe() -> Path:
    """recipes/lab/grpo.yaml: in the package when it was installed from a wheel, else beside the sources."""
    package = Path(sgcd.__file__).parent
    inside = package / "recipes" / "lab" / "grpo.yaml"
    return inside if inside.is_file() else package.parents[1] / "recipes" / "lab" / "grpo.yaml"


def warm_start(names: list[str], out: Path | None) -> None:
    from sgcd.lab.start import rebuild

    rebuild(names, out)
