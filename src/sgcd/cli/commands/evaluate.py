"""sgcd evaluate: play held-out tasks with a run's policy, any policy, or any chat model behind an endpoint."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from sgcd.cli.commands import evaluate_endpoint as modelling
from sgcd.cli.commands.evaluate_endpoint import no_trials_error, print_evaluation
from sgcd.cli.output import progress_console
from sgcd.errors import FolderError, RecipeError
from sgcd.measure.health import run_invalid_reasons
from sgcd.measure.summary import summarise_evaluation
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe
from sgcd.storage.run_folder import RunFolder

_SAVED_POLICY_KEYS = ("policy.lora.rank=0",)
"""A saved policy is merged with the adapter that it was trained by."""


def run_evaluate(
    target: Path,
    words: Sequence[str],
    split: str | None,
    trials: int | None,
    tasks: int | None,
    recipe: Path | None,
    run: Path | None,
    as_json: bool,
) -> None:
    options = {"split": split, "trials": trials, "tasks": tasks}
    keys = [f"evaluation.{name}={value}" for name, value in options.items() if value is not None]
    if target.is_file():
        if recipe:
            raise RecipeError(f"{target}: is a recipe already; leave out --recipe {recipe}")
        modelling.run_endpoint_evaluation(load_recipe(target, [*words, *keys]), run, as_json)
        return
    for word in (*words, *([f"--run {run}"] if run else ())):
        raise RecipeError(f"{word}: only goes with a recipe, whose evaluation.model is played; {target} is none")
    evaluate_policy(target, keys, recipe, as_json)


def evaluate_policy(target: Path, keys: list[str], recipe: Path | None, as_json: bool) -> None:
    folder = RunFolder.open(target) if (target / "recipe.yaml").is_file() else None
    loaded_recipe = load_run_recipe(folder, recipe, keys) if folder else load_policy_recipe(target, recipe, keys)
    from sgcd.assemble import assemble

    context = assemble(loaded_recipe)
    if not context.num_trials():
        raise no_trials_error(loaded_recipe)
    context.check_ready()
    progress_console().print(
        f"playing {context.num_trials()} trials of {loaded_recipe.evaluation.split} tasks with "
        f"{loaded_recipe.policy.start}"
    )
    rows = asyncio.run(context.evaluate(saved_step(Path(loaded_recipe.policy.start))))
    if folder:
        folder.append_evaluation(rows)
    summary = summarise_evaluation(rows) | {"invalid": run_invalid_reasons(folder.read_metrics()) if folder else []}
    print_evaluation(
        summary
        | ({"endpoints": {"user": context.user_endpoint.usage_tracker.pop_metrics()}} if context.user_endpoint else {}),
        as_json,
    )


def saved_step(policy: Path) -> int:
    """After which step of a run a policy was saved; 0 for one that comes from elsewhere."""
    for name in ("trained.json", "state.json"):
        if (policy / name).is_file():
            return json.loads((policy / name).read_text())["step"]
    return 0


def load_run_recipe(folder: RunFolder, recipe: Path | None, keys: list[str]) -> Recipe:
    if recipe:
        raise RecipeError(f"{folder.path}: a run has its own recipe; leave out --recipe {recipe}")
    if "machine" not in folder.facts:
        raise FolderError(f"{folder.path}: holds the evaluation of a model, not a run; sgcd compare reads it")
    if not folder.policy_path.is_dir():
        raise FolderError(
            f"{folder.path}: the run has not come to its end, so it has no policy/ yet; go on with it "
            f"(sgcd train --run {folder.path} --resume), or evaluate one of its checkpoints with --recipe"
        )
    return load_recipe(folder.path / "recipe.yaml", [*keys, *_SAVED_POLICY_KEYS, f"policy.start={folder.policy_path}"])


def load_policy_recipe(policy: Path, recipe: Path | None, keys: list[str]) -> Recipe:
    if not policy.is_dir():
        raise FolderError(f"{policy}: does not exist; expected the folder of a run or of a policy, or a recipe")
    if recipe is None:
        raise FolderError(
            f"{policy}: is not a run's folder; expected one that sgcd train has made, or for the folder of a policy "
            "the recipe of its environment: --recipe RECIPE"
        )
    return load_recipe(recipe, [*keys, *_SAVED_POLICY_KEYS, f"policy.start={policy}"])
