"""sgcd evaluate RECIPE: held-out tasks with a chat model behind an endpoint, without torch; and how it is shown."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgcd.cli.answer import print_json, progress, results
from sgcd.errors import EnvironmentFault, FolderError
from sgcd.files import SCHEMA, append_rows, remove
from sgcd.measure.health import troubles
from sgcd.measure.summary import summarise
from sgcd.recipe import Recipe, dump
from sgcd.records import Rollout
from sgcd.run import RunFolder
from sgcd.show.tables import evaluation_table, remarks, spent_by

if TYPE_CHECKING:
    from sgcd.staging import Plain


def evaluate(recipe: Recipe, run: Path | None, as_json: bool) -> None:
    from sgcd.staging import plain_of

    built = plain_of(recipe)
    if not built.trials():
        raise no_trials(recipe)
    built.ready()
    if run and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise FolderError(f"{run}: the folder is not empty; choose another one, or remove it")
    folder = RunFolder.create(run, dump(recipe), facts(built)) if run else None
    split = recipe.evaluation.split
    progress().print(f"playing {built.trials()} trials of {split} tasks with {built.model.told()}", soft_wrap=True)
    try:
        played = asyncio.run(built.evaluate(folder.path if folder else None))
    except BaseException:
        if folder:
            remove(folder.path)  # half an evaluation is none; with a cache, answers that were paid for are not lost
        raise
    if folder:
        folder.append_evaluation([row for row, _ in played])
        append_rows(folder.path / "talks.jsonl", [talk(row, rollout) for row, rollout in played])
    told = {"invalid": [], "model": built.settings.model, "endpoints": built.asked()}
    show(summarise([row for row, _ in played]) | told, as_json)


def facts(built: "Plain") -> dict[str, Any]:
    """Of a folder that holds an evaluation and no run."""
    models = {name: {"model": endpoint.settings.model} for name, endpoint in built.endpoints.items()}
    tasks = {split: len(tasks) for split, tasks in built.stage.splits.items()}
    return {"seed": built.recipe.seed, **models, "tasks": tasks}


def talk(row: Mapping[str, Any], rollout: Rollout) -> dict[str, Any]:
    """What was said in a trial."""
    place = {name: row[name] for name in ("split", "mode", "task", "trial", "success", "broken")}
    return {"schema": SCHEMA, **place, "messages": list(rollout.messages)}


def no_trials(recipe: Recipe) -> EnvironmentFault:
    return EnvironmentFault(f"environment: there are no {recipe.evaluation.split} tasks, or no trials of them to play")


def show(summary: Mapping[str, Any], as_json: bool) -> None:
    """An evaluation, whoever was played."""
    if as_json:
        print_json(summary)
        return
    results().print(evaluation_table(summary))
    asked: Mapping[str, Mapping[str, Any]] = summary.get("endpoints", {})
    lines: Sequence[str] = [
        *(f"INVALID: {reason}" for reason in summary["invalid"]),
        *remarks(summary),
        *(line for who, told in asked.items() for line in (*troubles([told], who), *spent_by(who, [told]))),
    ]
    for line in lines:
        results().print(line, soft_wrap=True)
