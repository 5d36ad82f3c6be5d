"""sgcd evaluate: play held-out tasks with a run's policy, or with any policy under a recipe's environment."""

import asyncio
import json
from pathlib import Path

from sgcd.cli.answer import print_json, progress, results
from sgcd.errors import EnvironmentFault, FolderError, RecipeError
from sgcd.measure.health import invalid
from sgcd.measure.summary import summarise
from sgcd.recipe import Recipe, load
from sgcd.run import RunFolder
from sgcd.show.tables import evaluation_table, remarks

AS_SAVED = ("policy.lora.rank=0",)
"""A saved policy is merged with the adapter that it was trained by."""


def evaluate(
    what: Path, split: str | None, trials: int | None, tasks: int | None, recipe: Path | None, as_json: bool
) -> None:
    folder = RunFolder.open(what) if (what / "recipe.yaml").is_file() else None
    asked = {"split": split, "trials": trials, "tasks": tasks}
    keys = [f"evaluation.{name}={value}" for name, value in asked.items() if value is not None]
    told = recipe_of_run(folder, recipe, keys) if folder else recipe_of_policy(what, recipe, keys)
    from sgcd.assemble import assemble

    built = assemble(told)
    if not built.trials():
        raise EnvironmentFault(f"environment: there are no {told.evaluation.split} tasks, or no trials of them to play")
    progress().print(f"playing {built.trials()} trials of {told.evaluation.split} tasks with {told.policy.start}")
    rows = asyncio.run(built.evaluate(step_of(Path(told.policy.start))))
    if folder:
        folder.append_evaluation(rows)
    summary = summarise(rows) | {"invalid": invalid(folder.metrics()) if folder else []}
    if as_json:
        print_json(summary)
        return
    results().print(evaluation_table(summary))
    for reason in summary["invalid"]:
        results().print(f"INVALID: {reason}", soft_wrap=True)
    for line in remarks(summary):
        results().print(line, soft_wrap=True)


def step_of(policy: Path) -> int:
    """After which step of a run a policy was saved; 0 for one that comes from elsewhere."""
    for name in ("trained.json", "state.json"):
        if (policy / name).is_file():
            return json.loads((policy / name).read_text())["step"]
    return 0


def recipe_of_run(folder: RunFolder, recipe: Path | None, keys: list[str]) -> Recipe:
    if recipe:
        raise RecipeError(f"{folder.path}: a run has its own recipe; leave out --recipe {recipe}")
    if not folder.policy_path.is_dir():
        raise FolderError(
            f"{folder.path}: the run has not come to its end, so it has no policy/ yet; go on with it "
            f"(sgcd train --run {folder.path} --resume), or evaluate one of its checkpoints with --recipe"
        )
    return load(folder.path / "recipe.yaml", [*keys, *AS_SAVED, f"policy.start={folder.policy_path}"])


def recipe_of_policy(policy: Path, recipe: Path | None, keys: list[str]) -> Recipe:
    if not policy.is_dir():
        raise FolderError(f"{policy}: does not exist; expected the folder of a run or of a policy")
    if recipe is None:
        raise FolderError(
            f"{policy}: is not a run's folder; expected one that sgcd train has made, or for the folder of a policy "
            "the recipe of its environment: --recipe RECIPE"
        )
    return load(recipe, [*keys, *AS_SAVED, f"policy.start={policy}"])
