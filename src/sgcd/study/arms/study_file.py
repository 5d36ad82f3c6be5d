"""A study's file: arms, seeds, tuning, comparisons and hypotheses, read from YAML and checked as a whole."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sgcd.errors import StudyError
from sgcd.settings import NonNegativeCount, Settings, Share
from sgcd.storage.yaml import load_yaml, short_json

PERMUTED_SUFFIX = "-permuted"
"""The twin of an arm, which runs under `control: permuted`, has the arm's name with this at its end."""
START = "start"
"""What a hypothesis compares an arm with instead of another arm: the arm's own success before the first step."""
Keys = dict[str, Any]
"""Keys of a recipe by their full paths, as on the command line."""
ArmName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Outcome = Literal["end", "mean", "training"]


class TuningSettings(Settings):
    """The grid that is run for every arm, on seeds that the study does not use again."""

    seeds: Annotated[tuple[NonNegativeCount, ...], Field(min_length=1)]
    """Every point runs with each of these seeds. The best mean of success over a whole run is chosen."""
    grid: Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], Field(min_length=1)]
    """Keys with their values. Where siblings.groups varies, steps, warm-up and the steps between two evaluations vary
    inversely, so that all points learn from equally many groups."""
    keys: Keys = Field(default_factory=dict[str, Any])
    """Keys of all tuning runs, such as the split of their evaluation."""


class HypothesisSettings(Settings):
    """A prediction that is written down before the fresh seeds run."""

    says: str
    """The prediction in words."""
    arm: ArmName
    less: ArmName
    """What the arm is compared with: another arm, or `start`, its own success before the first step."""
    beyond_permuted: bool = False
    """Compare (arm less its permuted twin) with (the other arm less its own)."""
    expected: Literal["higher", "lower", "same"]


class Study(Settings):
    """Arms that differ in their method, run on the same seeds and compared."""

    version: Literal[1]
    """Version of this format."""
    title: str
    recipe: str
    """The recipe that all arms share; a path from the folder of the study's file."""
    keys: Keys = Field(default_factory=dict[str, Any])
    """Keys of all runs."""
    arms: Annotated[dict[ArmName, Keys], Field(min_length=1)]
    """Keys of each arm, among them its method."""
    differences: tuple[str, ...] = ()
    """Keys and sections, besides method, in which arms may differ."""
    compare_with: Annotated[tuple[ArmName, ...], Field(min_length=1)]
    """Arms with which all others are compared. Every arm must equal the first one but for its method."""
    permuted: tuple[ArmName, ...] = ()
    """Arms that also run under `control: permuted`."""
    seeds: Annotated[tuple[NonNegativeCount, ...], Field(min_length=1)]
    """Every arm runs with each of these seeds."""
    starts: tuple[str, ...] = ()
    """Policies that the seeds take in turn; without any, the recipe's. Keys of tuning may name one of its own."""
    tuning: TuningSettings | None = None
    """The grid behind each arm's keys; without it, all arms have the recipe's."""
    outcome: Outcome = "end"
    """What is compared, and what tuning chooses by where it is `training`: success at the end of a run, its mean over
    all evaluations after the start, or its mean over all rollouts that were played to learn from."""
    thresholds: tuple[Share, ...] = (0.5, 0.6, 0.7)
    """Success whose first step is reported."""
    hypotheses: tuple[HypothesisSettings, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Refuse names of arms that do not exist, and seeds that are used twice."""
        names = self.arm_names()
        for key, given in (
            ("compare_with", self.compare_with),
            ("permuted", self.permuted),
            ("hypotheses", [name for one in self.hypotheses for name in (one.arm, one.less)]),
        ):
            allowed = [*self.arms] if key == "permuted" else [*names, START] if key == "hypotheses" else names
            unknown = next((name for name in given if name not in allowed), None)
            if unknown:
                raise ValueError(f"{key}: no arm {unknown}; expected one of {', '.join(allowed)}")
        reserved = next((name for name in self.arms if name == START or name.endswith(PERMUTED_SUFFIX)), None)
        if reserved:
            raise ValueError(f"arms.{reserved}: this name is not free; `permuted: [ARM]` makes an arm's permuted twin")
        for one in self.hypotheses:
            lacking = [name for name in (one.arm, one.less) if one.beyond_permuted and name not in self.permuted]
            if lacking:
                raise ValueError(f"hypotheses: {lacking[0]} has no permuted twin; expected it under permuted")
        tuning_seeds = self.tuning.seeds if self.tuning else ()
        repeated = [seed for seed in {*self.seeds} if [*self.seeds, *tuning_seeds].count(seed) > 1]
        if repeated:
            raise ValueError(f"seeds: {repeated[0]} is used twice; expected fresh seeds, each once")
        return self

    def arm_names(self) -> list[str]:
        """All arms, each followed by its permuted twin."""
        return [name for arm in self.arms for name in ([arm, arm + PERMUTED_SUFFIX] if arm in self.permuted else [arm])]


def load_study(path: Path) -> Study:
    """The study in a YAML file."""
    data = load_yaml(path, str(path), "study")
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        problems = [
            _describe(detail["loc"], detail["type"], detail["msg"], detail["input"]) for detail in error.errors()
        ]
        raise StudyError(f"{path}: {'; '.join(dict.fromkeys(problems))}") from None


def _describe(location: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    path = ".".join(map(str, location))
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "missing":
        return f"{path}: missing"
    if kind == "extra_forbidden":
        fields = Study.model_fields if len(location) == 1 else {}
        hint = f"; expected one of {', '.join(fields)}" if fields else ""
        return f"{path}: no such key{hint}"
    return f"{path}: {message[0].lower()}{message[1:]}, got {short_json(value)}"
