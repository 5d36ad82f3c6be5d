"""The recipe that an evaluation plays by: of a run, of a policy from elsewhere, or of an evaluation that goes on."""

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING

from sgcd.errors import FolderError, RecipeError

if TYPE_CHECKING:
    from sgcd.recipe.schema import Recipe
    from sgcd.storage.run_folder import RunFolder

_SAVED_POLICY_KEYS = ("policy.lora.rank=0",)
"""A saved policy has its adapter merged."""


def load_run_recipe(folder: "RunFolder", recipe_path: Path | None, keys: list[str], step: int | None) -> "Recipe":
    from sgcd.recipe.load import load_recipe
    from sgcd.storage.manifest import check_folder, is_light_file
    from sgcd.storage.verify import resume_command

    if recipe_path:
        raise RecipeError(f"{folder.path}: a run has its own recipe; leave out --recipe {recipe_path}")
    if folder.kind == "evaluation":
        raise FolderError(
            f"{folder.path}: holds the evaluation of a model, not a run; sgcd compare reads it, and --resume goes "
            "on with it"
        )
    steps = folder.checkpoint_steps()
    if step is not None and step not in steps:
        raise FolderError(
            f"{folder.path}: has no checkpoint of step {step}; there are {', '.join(map(str, steps)) or 'none'}; "
            "checkpoint.keep decides how many stay"
        )
    policy = folder.policy_path if step is None else folder.checkpoint_path(step)
    if not policy.is_dir():
        raise FolderError(
            f"{folder.path}: the run has not come to its end, so it has no policy/ yet; go on with it "
            f"({resume_command(folder)}), or evaluate one of its checkpoints: --step N"
        )
    check_folder(policy, needs_manifest=folder.has_checksums, is_read=is_light_file)
    return load_recipe(folder.path / "recipe.yaml", [*keys, *_SAVED_POLICY_KEYS, f"policy.start={policy}"])


def load_policy_recipe(policy: Path, recipe_path: Path | None, keys: list[str]) -> "Recipe":
    from sgcd.recipe.load import load_recipe

    if not policy.is_dir():
        raise FolderError(f"{policy}: does not exist; expected the folder of a run or of a policy, or a recipe")
    if recipe_path is None:
        raise FolderError(
            f"{policy}: is not a run's folder; expected one that sgcd train has made, or for the folder of a policy "
            "the recipe of its environment: --recipe RECIPE"
        )
    return load_recipe(recipe_path, [*keys, *_SAVED_POLICY_KEYS, f"policy.start={policy}"])


def check_same_evaluation(folder: "RunFolder", started_recipe: "Recipe", recipe: "Recipe") -> None:
    """Only connections may change: another model, limit or number of trials would be another evaluation's."""
    from sgcd.endpoint.settings import CONNECTION_KEYS
    from sgcd.recipe.schema import recipe_differences

    sections = ("evaluation.model", "environment.user")
    free = tuple(f"{section}.{key}" for section in sections for key in CONNECTION_KEYS)
    changed = [
        change.key
        for change in recipe_differences(started_recipe, recipe)
        if not any(change.key == key or change.key.startswith(f"{key}.") for key in free)
    ]
    if changed:
        raise FolderError(
            f"{folder.path}: the evaluation was begun with another {', '.join(changed)}; only the connection to a "
            f"model may change ({', '.join(CONNECTION_KEYS)}); evaluate into another folder"
        )


def saved_step(policy: Path) -> int:
    """The step of the run after which a policy was saved; 0 for a policy from elsewhere."""
    from sgcd.storage.record_files import reading

    for name in ("trained.json", "state.json"):
        if (policy / name).is_file():
            with reading(policy / name):
                return int(jsonlib.loads((policy / name).read_bytes())["step"])
    return 0
