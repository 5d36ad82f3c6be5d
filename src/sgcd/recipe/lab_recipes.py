"""Finds the lab's recipes, which ship with the package."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def lab_recipe_path(method: str) -> Path:
    """recipes/lab/METHOD.yaml: in the package if it was installed from a wheel, else beside the sources."""
    inside = _PACKAGE / "recipes" / "lab" / f"{method}.yaml"
    return inside if inside.is_file() else _PACKAGE.parents[1] / "recipes" / "lab" / f"{method}.yaml"
