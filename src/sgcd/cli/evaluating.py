"""sgcd evaluate: play held-out tasks with a run's policy, any policy, or any chat model behind an endpoint."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from sgcd.cli import modelling
from sgcd.cli.answer import progress
from sgcd.cli.modelling import no_trials, show
from sgcd.errors import FolderError, RecipeError
from sgcd.measure.health import invalid
from sgcd.measure.summary import summarise
from sgcd.recipe import Recipe, load
from sgcd.run import RunFolder

AS_SAVED = ("policy.lora.rank=0",)
"""A saved policy is merged with the adapter that it was trained by."""


def evaluate(
    what: Path,
    words: Sequence[str],
    split: str | None,
    trials: int | None,
    tasks: int | None,
    recipe: Path | None,
    run: Path | None,
    as_json: bool,
) -> None:
    asked = {"split": split, "trials": trials, "tasks": tasks}
    keys = [f"evaluation.{name}={value}" for name, value in asked.items() if value is not None]
    if what.is_file():
        if recipe:
            raise RecipeError(f"{what}: is a recipe already; leave out --recipe {recipe}")
        modelling.evaluate(load(what, [*words, *keys]), run, as_json)
        return
    for given in (*words, *([f"--run {run}"] if run else ())):
        raise RecipeError(f"{given}: only goes with a recipe, whose evaluation.model is played; {what} is none")
    evaluate_policy(what, keys, recipe, as_json)


def evaluate_policy(what: Path, keys: list[str], recipe: Path | None, as_json: bool) -> None:
    folder = RunFolder.open(what) if (what / "recipe.yaml").is_file() else None
    told = recipe_of_run(folder, recipe, keys) if folder else recipe_of_policy(what, recipe, keys)
    from sgcd.assemble import assemble

    built = assemble(told)
    if not built.trials():
        raise no_trials(told)
    built.ready()
    progress().print(f"playing {built.trials()} trials of {told.evaluation.split} tasks with {told.policy.start}")
    rows = asyncio.run(built.evaluate(step_of(Path(told.policy.start))))
    if folder:
        folder.append_evaluation(rows)
    summary = summarise(rows) | {"invalid": invalid(folder.metrics()) if folder else []}
    show(summary | ({"endpoints": {"user": built.user.account.split()}} if built.user else {}), as_json)


def step_of(policy: Path) -> int:
    """After which step of a run a policy was saved; 0 for one that comes from elsewhere."""
    for name in ("trained.json", "state.json"):
        if (policy / name).is_file():
            return json.loads((policy / name).read_text())["step"]
    return 0


def recipe_of_run(folder: RunFolder, recipe: Path | None, keys: list[str]) -> Recipe:
    if recipe:
        raise RecipeError(f"{folder.path}: a run has its own recipe; leave out --recipe {recipe}")
    if "machine" not in folder.facts:
        raise FolderError(f"{folder.path}: holds the evaluation of a model, not a run; sgcd compare reads it")
    if not folder.policy_path.is_dir():
        raise FolderError(
            f"{folder.path}: the run has not come to its end, so it has no policy/ yet; go on with it "
            f"(sgcd train --run {folder.path} --resume), or evaluate one of its checkpoints with --recipe"
        )
    return load(folder.path / "recipe.yaml", [*keys, *AS_SAVED, f"policy.start={folder.policy_path}"])


def recipe_of_policy(policy: Path, recipe: Path | None, keys: list[str]) -> Recipe:
    if not policy.is_dir():
        raise FolderError(f"{policy}: does not exist; expected the folder of a run or of a policy, or a recipe")
    if recipe is None:
        raise FolderError(
            f"{policy}: is not a run's folder; expected one that sgcd train has made, or for the folder of a policy "
            "the recipe of its environment: --recipe RECIPE"
        )
    return load(recipe, [*keys, *AS_SAVED, f"policy.start={policy}"])
