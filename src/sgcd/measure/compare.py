"""Runs against runs on the same held-out tasks: paired differences, overall and per category, with intervals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from sgcd.endpoint.settings import WAYS
from sgcd.errors import FolderError
from sgcd.measure.health import invalid
from sgcd.measure.rows import MODES, SCHEMA, Row, by_task, one_evaluation, successes, whole
from sgcd.measure.statistics import Numbers, mcnemar, paired, paired_runs, sign_flips
from sgcd.records import CATEGORIES
from sgcd.run import RunFolder
from sgcd.yaml import read


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluation of one run.

    >>> Evaluated("runs/a", [{"seed": 1, "step": 40}], {"name": "lab"}).seed
    1
    """

    run: str
    rows: Sequence[Row]
    environment: Mapping[str, Any]
    """The recipe's section: tasks of two worlds may have the same ids."""
    invalid: tuple[str, ...] = ()
    """Why the run proves nothing; see measure/health.py."""

    @property
    def seed(self) -> int:
        return self.rows[0]["seed"]

    @property
    def step(self) -> int:
        return self.rows[0]["step"]


def load(path: Path, split: str | None = None, step: int | None = None) -> Evaluated:
    """The latest evaluation of a run, or the one of a certain split and step."""
    folder = RunFolder.open(path)
    rows = one_evaluation(folder.evaluations(), split, step)
    if not rows:
        asked = "".join(f", {key} {value}" for key, value in (("split", split), ("step", step)) if value is not None)
        raise FolderError(f"{path}: no evaluation in this run{asked}; `sgcd evaluate` makes one")
    environment = read(folder.recipe_text, f"{path}/recipe.yaml")["environment"]
    return Evaluated(str(path), rows, environment, tuple(invalid(folder.metrics())))


def ends(path: Path, split: str | None = None) -> tuple[Evaluated, Evaluated]:
    """What a run was at its start and what it is now, on the tasks that it played both times."""
    start, end = load(path, split, 0), load(path, split)
    played = {(row["mode"], row["task"]) for row in start.rows}  # `sgcd evaluate` may have added more since
    return start, replace(end, rows=[row for row in end.rows if (row["mode"], row["task"]) in played])


def compare(a: Sequence[Evaluated], b: Sequence[Evaluated], seed: int = 0) -> dict[str, Any]:
    """a minus b, for every mode that all of them played.

    One run a side: a bootstrap over tasks, with McNemar's exact test for single passes and a permutation test for
    several trials. Several runs: a bootstrap over seeds, then tasks; where both sides have the same seeds, runs are
    matched by seed.
    """
    check(a, b)
    matched = len(a) == len({e.seed for e in a}) and sorted(e.seed for e in a) == sorted(e.seed for e in b)
    if matched:
        a, b = sorted(a, key=lambda e: e.seed), sorted(b, key=lambda e: e.seed)
    return {
        "schema": SCHEMA,
        "a": [{"run": e.run, "seed": e.seed, "step": e.step, "invalid": [*e.invalid]} for e in a],
        "b": [{"run": e.run, "seed": e.seed, "step": e.step, "invalid": [*e.invalid]} for e in b],
        "split": a[0].rows[0]["split"],
        "matched_by_seed": matched,
        "modes": {mode: of_mode(mode, a, b, matched, seed) for mode in MODES if plays([*a, *b], mode)},
    }


def of_mode(mode: str, a: Sequence[Evaluated], b: Sequence[Evaluated], matched: bool, seed: int) -> dict[str, Any]:
    sides = [[[row for row in e.rows if row["mode"] == mode] for e in side] for side in (a, b)]
    categories = {row["task"]: row["category"] for row in sides[0][0]}
    # A task whose every trial broke in one run says nothing about that run: it is left out for all, and counted.
    usable = [task for task in sorted(categories) if all(whole(by_task(rows)[task]) for side in sides for rows in side)]

    def of(tasks: Sequence[str]) -> dict[str, Any]:
        first, second = (np.stack([means(rows, tasks) for rows in side]) for side in sides)
        return difference(first, second, matched, seed)

    return {
        "overall": of(usable),
        "categories": {name: of([t for t in usable if categories[t] == name]) for name in CATEGORIES},
        "left_out": len(categories) - len(usable),
    }


def difference(a: Numbers, b: Numbers, matched: bool, seed: int) -> dict[str, Any]:
    """Of task means, runs x tasks on both sides."""
    told: dict[str, Any] = {"tasks": a.shape[1], "a": mean(a), "b": mean(b), "p": None, "test": ""}
    if len(a) == len(b) == 1:
        passes = np.isin([a, b], (0, 1)).all()
        told["difference"] = paired(a[0], b[0], seed).plain()
        told["p"] = mcnemar(a[0], b[0]) if passes else sign_flips(a[0], b[0], seed)
        told["test"] = "McNemar, exact" if passes else "permutation over tasks"
    else:
        told["difference"] = paired_runs(a, b, matched, seed).plain()
    if matched:
        told["runs"] = [paired(one, other, seed).plain() for one, other in zip(a, b, strict=True)]
    return told


def means(rows: Iterable[Row], tasks: Sequence[str]) -> Numbers:
    """The share of successes of each task."""
    played = {task: whole(trials) for task, trials in by_task(rows).items()}
    return np.array([successes(played[task]) / len(played[task]) for task in tasks])


def mean(values: Numbers) -> float | None:
    return float(values.mean()) if values.size else None


def plays(evaluated: Iterable[Evaluated], mode: str) -> bool:
    return all(any(row["mode"] == mode for row in e.rows) for e in evaluated)


def check(a: Sequence[Evaluated], b: Sequence[Evaluated]) -> None:
    """Refuse what was not measured on the same tasks in the same way, and name what differs."""
    first, *others = [*a, *b]
    for other in others:
        both = [mode for mode in MODES if plays([first, other], mode)]
        differ = list(differences(first, other, both)) if both else ["no mode in common"]
        if differ:
            raise FolderError(
                f"{first.run} and {other.run}: not measured on the same tasks in the same way: {', '.join(differ)}; "
                "evaluate both again alike"
            )


def differences(first: Evaluated, other: Evaluated, modes: Sequence[str]) -> Iterator[str]:
    def unless_equal(what: str, one: object, two: object) -> Iterator[str]:
        if one != two:
            yield f"{what} is {one} against {two}"

    for key in sorted({*first.environment, *other.environment}):
        one, two = (asked_for(side.environment.get(key)) for side in (first, other))
        yield from unless_equal(f"environment.{key}", one, two)
    yield from unless_equal("split", first.rows[0]["split"], other.rows[0]["split"])
    for mode in modes:
        one, two = tasks_of(first, mode), tasks_of(other, mode)
        if one != two:
            yield f"{mode} tasks: {len(one)} against {len(two)}, {len(one & two)} in common"
        yield from unless_equal(f"{mode} temperature", temperature(first, mode), temperature(other, mode))


def asked_for(setting: Any) -> Any:
    """A setting of the environment; of a simulated user without the ways by which it is reached."""
    if not isinstance(setting, Mapping):
        return setting
    known = cast("Mapping[str, Any]", setting)
    return {key: value for key, value in known.items() if key not in (*WAYS, "prices")}


def tasks_of(evaluated: Evaluated, mode: str) -> set[tuple[str, str]]:
    return {(row["task"], row["category"]) for row in evaluated.rows if row["mode"] == mode}


def temperature(evaluated: Evaluated, mode: str) -> float:
    return next(row["temperature"] for row in evaluated.rows if row["mode"] == mode)
