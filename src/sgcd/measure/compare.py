"""Compare runs on the same held-out tasks: paired differences with intervals, overall and per category."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.endpoint.settings import CONNECTION_KEYS
from sgcd.errors import FolderError
from sgcd.measure.statistics import (
    Float64Array,
    mcnemar_test,
    paired_interval,
    paired_runs_interval,
    permutation_test,
)
from sgcd.measure.summary import list_categories
from sgcd.measure.trial_rows import (
    CONVERSATIONS_FILE,
    MODES,
    TrialRow,
    count_successes,
    group_by_task,
    select_evaluation,
    unbroken,
)
from sgcd.measure.validity import run_invalid_reasons
from sgcd.settings import flatten_mapping
from sgcd.storage.atomic import SCHEMA
from sgcd.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class RunEvaluation:
    """One evaluation of one run.

    >>> RunEvaluation("runs/a", [{"seed": 1, "step": 40}], {"name": "lab"}).seed
    1
    """

    run: str
    rows: Sequence[TrialRow]
    environment: Mapping[str, Any]
    """The recipe's section, because tasks of two environments may have the same ids."""
    invalid: tuple[str, ...] = ()
    """Why the run proves nothing; see measure/validity.py."""
    conditions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the policy had to work with, as far as the folder says: the limits of a rollout, and its chat template."""
    top_p: float = 1.0

    @property
    def seed(self) -> int:
        return self.rows[0]["seed"]

    @property
    def step(self) -> int:
        return self.rows[0]["step"]


def load_evaluation(path: Path, split: str | None = None, step: int | None = None) -> RunEvaluation:
    """Load the latest evaluation of a run, or that of a certain split and step."""
    folder = RunFolder.open(path)
    rows = select_evaluation(folder.read_evaluations(), split, step)
    if not rows and (path / CONVERSATIONS_FILE).is_file():
        raise FolderError(f"{path}: the evaluation is unfinished; go on with it: sgcd evaluate {path} --resume")
    if not rows:
        filters = "".join(f", {key} {value}" for key, value in (("split", split), ("step", step)) if value is not None)
        raise FolderError(f"{path}: no evaluation in this run{filters}; `sgcd evaluate` makes one")
    recipe = folder.read_recipe()
    limits = recipe.get("siblings", {}).get("limits", {})
    template = folder.facts.get("policy", {}).get("template", {})  # {}: the run is older than this fact
    return RunEvaluation(
        str(path),
        rows,
        environment=recipe["environment"],
        invalid=tuple(run_invalid_reasons(folder.read_metrics())),
        conditions=flatten_mapping({"siblings": {"limits": limits}, "chat template": template}),
        top_p=recipe.get("sampler", {}).get("top_p", 1.0),
    )


def load_first_and_last(path: Path, split: str | None = None) -> tuple[RunEvaluation, RunEvaluation]:
    """Load the first and the latest evaluation of a run, on the tasks that both played."""
    first, last = load_evaluation(path, split, 0), load_evaluation(path, split)
    tasks_at_start = {(row["mode"], row["task"]) for row in first.rows}  # `sgcd evaluate` may have added more since
    return first, replace(last, rows=[row for row in last.rows if (row["mode"], row["task"]) in tasks_at_start])


def compare_evaluations(a: Sequence[RunEvaluation], b: Sequence[RunEvaluation], seed: int = 0) -> dict[str, Any]:
    """a minus b, for every mode that all of them played.

    One run a side: a t interval over tasks, with McNemar's exact test for single passes and a permutation test for
    several trials. Several runs: a t interval over seeds and tasks; where both sides have the same seeds, runs are
    matched by seed.
    """
    check_comparable(a, b)
    seeds_a, seeds_b = [evaluation.seed for evaluation in a], [evaluation.seed for evaluation in b]
    matched = len(a) == len({*seeds_a}) and sorted(seeds_a) == sorted(seeds_b)
    if matched:
        a, b = (sorted(side, key=lambda evaluation: evaluation.seed) for side in (a, b))
    return {
        "schema": SCHEMA,
        "a": [describe_run(evaluation) for evaluation in a],
        "b": [describe_run(evaluation) for evaluation in b],
        "split": a[0].rows[0]["split"],
        "matched_by_seed": matched,
        "differing_conditions": list(find_differing_conditions([*a, *b])),
        "modes": {
            mode: compare_mode(mode, a, b, matched=matched, seed=seed) for mode in MODES if has_mode([*a, *b], mode)
        },
    }


def describe_run(evaluation: RunEvaluation) -> dict[str, Any]:
    return {
        "run": evaluation.run,
        "seed": evaluation.seed,
        "step": evaluation.step,
        "invalid": [*evaluation.invalid],
    }


def compare_mode(
    mode: str, a: Sequence[RunEvaluation], b: Sequence[RunEvaluation], *, matched: bool, seed: int
) -> dict[str, Any]:
    sides = [[[row for row in evaluation.rows if row["mode"] == mode] for evaluation in side] for side in (a, b)]
    categories = {row["task"]: row["category"] for row in sides[0][0]}
    # A task whose every trial broke in one run says nothing about that run: it is left out for all, and counted.
    usable = [
        task
        for task in sorted(categories)
        if all(unbroken(group_by_task(rows)[task]) for side in sides for rows in side)
    ]

    def compare_tasks(tasks: Sequence[str]) -> dict[str, Any]:
        first, second = (np.stack([task_success_rates(rows, tasks) for rows in side]) for side in sides)
        return compare_task_means(first, second, matched=matched, seed=seed)

    return {
        "overall": compare_tasks(usable),
        "categories": {
            name: compare_tasks([task_id for task_id in usable if categories[task_id] == name])
            for name in list_categories(categories.values())
        },
        "left_out": len(categories) - len(usable),
    }


def compare_task_means(a: Float64Array, b: Float64Array, *, matched: bool, seed: int) -> dict[str, Any]:
    """Compare task means; both arrays are runs x tasks."""
    result: dict[str, Any] = {"tasks": a.shape[1], "a": mean_or_none(a), "b": mean_or_none(b), "p": None, "test": ""}
    if len(a) == len(b) == 1:
        is_single_pass = np.isin([a, b], (0, 1)).all()
        result["difference"] = paired_interval(a[0], b[0]).to_json()
        result["p"] = mcnemar_test(a[0], b[0]) if is_single_pass else permutation_test(a[0], b[0], seed)
        result["test"] = "McNemar, exact" if is_single_pass else "permutation over tasks"
    else:
        result["difference"] = paired_runs_interval(a, b, matched).to_json()
    if matched:
        result["runs"] = [paired_interval(rates_a, rates_b).to_json() for rates_a, rates_b in zip(a, b, strict=True)]
    return result


def task_success_rates(rows: Iterable[TrialRow], tasks: Sequence[str]) -> Float64Array:
    """The share of successes of each task."""
    unbroken_by_task = {task: unbroken(trials) for task, trials in group_by_task(rows).items()}
    return np.array([count_successes(unbroken_by_task[task]) / len(unbroken_by_task[task]) for task in tasks])


def mean_or_none(values: Float64Array) -> float | None:
    return float(values.mean()) if values.size else None


def has_mode(evaluations: Iterable[RunEvaluation], mode: str) -> bool:
    return all(any(row["mode"] == mode for row in evaluation.rows) for evaluation in evaluations)


def check_comparable(a: Sequence[RunEvaluation], b: Sequence[RunEvaluation]) -> None:
    """Raise FolderError if the runs were not measured on the same tasks in the same way; it names the differences."""
    first, *others = [*a, *b]
    for second in others:
        shared_modes = [mode for mode in MODES if has_mode([first, second], mode)]
        problems = (
            list(find_setting_differences(first, second, shared_modes)) if shared_modes else ["no mode in common"]
        )
        if problems:
            raise FolderError(
                f"{first.run} and {second.run}: not measured on the same tasks in the same way: {', '.join(problems)}; "
                "evaluate both again alike"
            )


def find_differing_conditions(evaluations: Sequence[RunEvaluation]) -> Iterator[str]:
    """Conditions in which others differ from the first evaluation, each once; unknown ones are not compared.

    They are no reason to refuse: a run cannot be evaluated again with other limits or another template, and they may
    be what is compared. But the difference then is not that of the policies alone.
    """
    first, *others = evaluations
    found = dict.fromkeys(
        f"{key} is {first.conditions[key]} in {first.run} against {other.conditions[key]} in {other.run}"
        for other in others
        for key in first.conditions
        if key in other.conditions and other.conditions[key] != first.conditions[key]
    )
    yield from found


def find_setting_differences(first: RunEvaluation, second: RunEvaluation, modes: Sequence[str]) -> Iterator[str]:
    def describe_if_different(label: str, first_value: object, second_value: object) -> Iterator[str]:
        if first_value != second_value:
            yield f"{label} is {first_value} against {second_value}"

    first_settings, second_settings = (
        flatten_mapping({"environment": without_connection_keys(evaluation.environment)})
        for evaluation in (first, second)
    )
    for key in sorted({*first_settings, *second_settings}):
        yield from describe_if_different(key, first_settings.get(key), second_settings.get(key))
    if "sampled" in modes:
        yield from describe_if_different("sampler.top_p", first.top_p, second.top_p)
    yield from describe_if_different("split", first.rows[0]["split"], second.rows[0]["split"])
    for mode in modes:
        first_value, second_value = tasks_in_mode(first, mode), tasks_in_mode(second, mode)
        if first_value != second_value:
            num_common = len(first_value & second_value)
            yield f"{mode} tasks: {len(first_value)} against {len(second_value)}, {num_common} in common"
        yield from describe_if_different(
            f"{mode} temperature", mode_temperature(first, mode), mode_temperature(second, mode)
        )


def without_connection_keys(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The environment's section; its simulated user without the keys of the connection."""
    user: Mapping[str, Any] = environment.get("user") or {}
    return {**environment, "user": {key: value for key, value in user.items() if key not in CONNECTION_KEYS}}


def tasks_in_mode(evaluation: RunEvaluation, mode: str) -> set[tuple[str, str]]:
    return {(row["task"], row["category"]) for row in evaluation.rows if row["mode"] == mode}


def mode_temperature(evaluation: RunEvaluation, mode: str) -> float:
    return next(row["temperature"] for row in evaluation.rows if row["mode"] == mode)
