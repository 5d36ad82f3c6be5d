"""The runs of a study: the keys of each arm, point of the grid and seed, and the recipe that follows from them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from sgcd.errors import StudyError
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe, recipe_differences
from sgcd.study.arms.study_file import PERMUTED_SUFFIX, Keys, Study

GROUPS_KEY = "siblings.groups"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of `sgcd train`: which arm and seed, where it goes, and the recipe with its keys."""

    arm: str
    seed: int
    path: Path
    recipe_path: Path
    overrides: tuple[str, ...]
    recipe: Recipe
    point: str = ""
    """The point of the grid, as text; empty for a run on a fresh seed."""

    @property
    def name(self) -> str:
        return " ".join(filter(None, [self.arm, self.point, f"seed {self.seed}"]))


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study with its file and the folder of its runs."""

    study: Study
    path: Path
    folder: Path

    @property
    def recipe_path(self) -> Path:
        return self.path.parent / self.study.recipe

    def points(self) -> list[Keys]:
        """The points of the grid; a single one without keys if the study tunes nothing."""
        grid: Mapping[str, Sequence[Any]] = self.study.tuning.grid if self.study.tuning else {}
        return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]

    def tuning_runs(self) -> list[PlannedRun]:
        """Every arm at every point of the grid with every tuning seed; twins take the keys of their arms."""
        tuning = self.study.tuning
        if tuning is None:
            return []
        return [
            self.plan_run(arm, seed, point, keys=tuning.keys, label=describe_point(point))
            for arm in self.study.arms
            for point in self.points()
            for seed in tuning.seeds
        ]

    def fresh_runs(self, chosen: Mapping[str, Keys]) -> list[PlannedRun]:
        """Every arm and twin with every fresh seed; seed by seed, so that a stopped study has whole comparisons."""
        return [
            self.plan_run(arm, seed, chosen.get(arm.removesuffix(PERMUTED_SUFFIX), {}))
            for seed in self.study.seeds
            for arm in self.study.arm_names()
        ]

    def plan_run(
        self, arm: str, seed: int, point: Keys, *, keys: Mapping[str, Any] = {}, label: str = ""
    ) -> PlannedRun:
        """The run of an arm or a twin with a seed at a point of the grid."""
        study, base = self.study, arm.removesuffix(PERMUTED_SUFFIX)
        all_keys: Keys = {**study.keys, **keys, **study.arms[base]}
        if study.starts and "policy.start" not in keys:
            seeds = study.seeds if not label or study.tuning is None else study.tuning.seeds
            all_keys["policy.start"] = study.starts[seeds.index(seed) % len(study.starts)]
        if base != arm:
            all_keys["control"] = "permuted"
        overrides = to_overrides(all_keys)
        overrides += to_overrides({**point, **self._equal_groups(overrides, point), "seed": seed})
        folder = self.folder / "tuning" / arm / label if label else self.folder / "seeds" / arm
        recipe = load_recipe(self.recipe_path, overrides, is_supervised=False)
        return PlannedRun(arm, seed, folder / str(seed), self.recipe_path, tuple(overrides), recipe, label)

    def _equal_groups(self, overrides: Sequence[str], point: Keys) -> Keys:
        """Steps and what is counted in steps, so that a point learns from as many groups as the recipe."""
        if GROUPS_KEY not in point:
            return {}
        recipe, groups = load_recipe(self.recipe_path, overrides, is_supervised=False), point[GROUPS_KEY]
        steps = {
            "steps": recipe.steps,
            "optimizer.warmup": recipe.optimizer.warmup,
            "evaluation.every": recipe.evaluation.every,
            "checkpoint.every": recipe.checkpoint.every,
        }
        scaled = {key: number * recipe.siblings.groups / groups for key, number in steps.items()}
        uneven = next((key for key, number in scaled.items() if number != int(number)), None)
        if uneven:
            raise StudyError(
                f"{self.path}: tuning.grid: with {GROUPS_KEY}={groups} in place of {recipe.siblings.groups}, {uneven} "
                f"would be {scaled[uneven]:g} for equally many groups; expected whole numbers"
            )
        return {key: int(number) for key, number in scaled.items()}


def to_overrides(keys: Mapping[str, Any]) -> list[str]:
    """Keys as the command line takes them. JSON is YAML."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in keys.items()]


def describe_point(point: Keys) -> str:
    """A point of the grid as text, also the name of its folder: lr=0.001,groups=4."""
    return ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in point.items())


def check_arms(plan: StudyPlan) -> None:
    """Refuse an arm that differs from the first of `compare_with` in more than its method and declared differences."""
    study = plan.study
    first_seed = study.seeds[0]
    runs = {arm: plan.plan_run(arm, first_seed, {}) for arm in {**study.arms, study.compare_with[0]: {}}}
    control = study.compare_with[0]
    allowed = ("method", *study.differences)
    for arm, run in runs.items():
        differing = [
            change
            for change in recipe_differences(runs[control].recipe, run.recipe)
            if not any(change.key == key or change.key.startswith(f"{key}.") for key in allowed)
        ]
        if differing:
            described = ", ".join(f"{change.key} ({change.new} against {change.old})" for change in differing)
            raise StudyError(
                f"{plan.path}: arms.{arm}: differs from {control} in {described}; expected no difference but method, "
                "or the key under `differences`"
            )


def started_folders(folder: Path) -> Iterator[Path]:
    """Every run that was ever started in a study's folder, in this plan or in an earlier one."""
    for part in ("tuning", "seeds"):
        yield from sorted(path.parent for path in (folder / part).rglob("recipe.yaml"))
