"""sgcd train: a new run, or one that goes on."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sgcd.cli.answer import print_json, progress, recipe_and_keys, results
from sgcd.errors import FolderError, RecipeError
from sgcd.measure.compare import compare, ends
from sgcd.measure.health import invalid, of_run
from sgcd.measure.summary import summarise
from sgcd.recipe import FREE, Recipe, differences, dump, free, load
from sgcd.run import RunFolder
from sgcd.show.tables import change_table, remarks
from sgcd.show.terminal import Terminal

if TYPE_CHECKING:
    from sgcd.assemble import Assembly


def train(words: Sequence[str], run: Path, resume: bool, as_json: bool) -> None:
    recipe, keys = recipe_and_keys(words)
    if resume:
        told = go_on(recipe, keys, run)
    elif recipe is None:
        raise RecipeError(
            f"a new run needs a recipe: sgcd train RECIPE --run {run}; "
            f"to go on with a run that was stopped: sgcd train --run {run} --resume"
        )
    else:
        told = begin(recipe, keys, run)
    if as_json:
        print_json(told)
    else:
        show(told)


def begin(path: Path, keys: Sequence[str], run: Path) -> dict[str, Any]:
    recipe = load(path, keys)
    if (run / "recipe.yaml").exists():
        raise FolderError(
            f"{run}: there is a run in this folder already; go on with it (sgcd train --run {run} --resume), "
            "or choose another folder"
        )
    from sgcd.assemble import assemble

    built = assemble(recipe)
    asyncio.run(built.check_window())
    built.ready()
    folder = RunFolder.create(run, dump(recipe), built.facts())
    return work(recipe, folder, built)


def go_on(path: Path | None, keys: Sequence[str], run: Path) -> dict[str, Any]:
    folder = RunFolder.open(run)
    if "machine" not in folder.facts:
        raise FolderError(f"{run}: holds the evaluation of a model, and no run that was trained; name another folder")
    started = load(run / "recipe.yaml")
    recipe = load(path or run / "recipe.yaml", keys)
    refuse_changes(folder, started, recipe)
    from sgcd.assemble import assemble, moved

    built = assemble(recipe, threads=folder.facts["machine"]["threads"])
    built.ready()
    for warning in moved(folder.facts, built.facts()):
        progress().print(warning, soft_wrap=True)
    if recipe != started:
        folder.replace_recipe(dump(recipe))
    return work(recipe, folder, built)


def refuse_changes(folder: RunFolder, started: Recipe, recipe: Recipe) -> None:
    """Refuse what would make the rest of the run another run's."""
    changed = [each for each in differences(started, recipe) if not free(each.key)]
    if changed:
        was = ", ".join(f"{each.key}={_typed(each.old)}" for each in changed)
        now = ", ".join(f"{each.key}={_typed(each.new)}" for each in changed)
        raise FolderError(
            f"{folder.path}: the run was started with {was}; {now} cannot be resumed, only {', '.join(sorted(FREE))} "
            "may change; start a new run in another folder"
        )
    reached = max(folder.checkpoints(), default=0)
    if recipe.steps < reached:
        raise FolderError(
            f"{folder.path}: the run has done {reached} steps already, steps={recipe.steps} lies behind it; give "
            f"steps={reached} or more, or start a new run in another folder"
        )


def work(recipe: Recipe, folder: RunFolder, built: "Assembly") -> dict[str, Any]:
    """Train, and say what came of it."""
    with Terminal(progress(), recipe.steps) as terminal:
        try:
            trained = asyncio.run(built.trainer(folder, terminal).run())
        except KeyboardInterrupt:
            terminal.say(f"stopped; to go on: sgcd train --run {folder.path} --resume")
            raise typer.Exit(130) from None
        if not trained.now:
            terminal.say(f"no step is left: the run had reached step {trained.step}; to go further give steps=N")
    return answer(folder, recipe.evaluation.split)


def answer(folder: RunFolder, split: str) -> dict[str, Any]:
    """What a finished run came to, read from its folder."""
    metrics = folder.metrics()
    step = metrics[-1]["step"] if metrics else 0
    told: dict[str, Any] = {"schema": 1, "run": str(folder.path), "policy": str(folder.policy_path), "step": step}
    measured = any(row["split"] == split for row in folder.evaluations())
    if measured:
        start, end = ends(folder.path, split)
        told |= {"start": summarise(start.rows), "end": summarise(end.rows), "change": compare([end], [start])}
    return told | {"health": of_run(metrics), "invalid": invalid(metrics)}


def show(told: dict[str, Any]) -> None:
    out = results()
    if "change" in told:
        out.print(change_table(told["start"], told["end"], told["change"]))
        for line in remarks(told["end"]):
            out.print(line, soft_wrap=True)
    else:
        out.print("no held-out tasks, so nothing was measured; name some by environment.dev")
    for concern in told["health"]:
        out.print(concern, soft_wrap=True)
    out.print(f"policy: {told['policy']}", soft_wrap=True)


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
