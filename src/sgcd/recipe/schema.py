"""`Recipe`: the settings of all rooms in one model, its YAML text, and the keys that a resumed run may change."""

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from sgcd.act.settings import EnvironmentSettings, SiblingsSettings
from sgcd.contrast.settings import ReferenceSettings
from sgcd.credit.settings import MethodSettings
from sgcd.endpoint.settings import CONNECTION_KEYS
from sgcd.lab.settings import LabSettings, LongDeskSettings
from sgcd.learn.settings import (
    CheckpointSettings,
    OptimizerSettings,
    PolicySettings,
    SamplerSettings,
    ScoringSettings,
    SupervisedSettings,
    SurrogateSettings,
    TeacherSettings,
    VerlSettings,
)
from sgcd.measure.settings import EvaluationSettings
from sgcd.settings import Control, Count, NonNegativeCount, Settings, TrackerName, flatten_mapping
from sgcd.storage.yaml import dump_yaml


class Recipe(Settings):
    """A run's full configuration."""

    version: Literal[1]
    """Version of this format."""
    seed: NonNegativeCount = 0
    """Seed of everything random."""
    steps: Count
    """Steps: each plays a batch of rollouts and learns from it."""
    control: Control = "none"
    """permuted deals the advantages of a group anew among its rollouts, by seed: what a method learns then, it does not
    learn from the verifier. The others change weights, for methods whose signal is credit alone. uniform_weights: each
    rollout's tokens have their mean; mean_weight: all tokens of a step have; shuffled_weights: a rollout's weights are
    dealt anew among its tokens, by seed; tied_weights: siblings that wrote the same so far have one weight."""
    policy: PolicySettings
    environment: Annotated[LabSettings | LongDeskSettings | EnvironmentSettings, Field(discriminator="name")]
    siblings: SiblingsSettings = SiblingsSettings()
    sampler: SamplerSettings = SamplerSettings()
    reference: ReferenceSettings = ReferenceSettings()
    method: MethodSettings
    teacher: TeacherSettings = TeacherSettings()
    surrogate: SurrogateSettings = SurrogateSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    scoring: ScoringSettings = ScoringSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    engine: Literal["local", "verl"] = "local"
    """local: this process samples and trains. verl: verl's workers do, on Ray and any number of GPUs; see
    docs/scale.md."""
    verl: VerlSettings = VerlSettings()
    trackers: tuple[TrackerName, ...] = ()
    """Where the numbers of a run go besides its folder: tensorboard and wandb (offline) into RUN/trackers, trackio into
    its own folder. Each needs its library."""
    supervised: SupervisedSettings | None = None
    """A supervised start by `sgcd sft`, which needs neither steps nor method; `sgcd train` does not read it."""

    @model_validator(mode="after")
    def _check_updates(self) -> Self:
        """Refuse a trust region that one update a batch never reaches."""
        region, updates = self.surrogate.trust_region, self.optimizer.updates
        if region != "clip" and updates == 1:
            raise ValueError(
                f"surrogate.trust_region={region}: acts from the second update of a batch on; expected "
                "optimizer.updates of at least 2, got 1"
            )
        return self

    @model_validator(mode="after")
    def _check_control(self) -> Self:
        """Refuse a control on weights for a method that is not credit alone."""
        if self.control not in ("none", "permuted") and self.method.role != "credit":
            raise ValueError(
                f"control={self.control}: changes the weights of a method whose signal is credit alone; "
                f"method.name={self.method.name} has a {self.method.role} as well, expected none or permuted"
            )
        return self


MODEL_SECTIONS = ("reference.writer", "environment.user")
"""Sections that name a model which a run calls."""
RESUMABLE_KEYS = frozenset(
    {"steps", "supervised.epochs", "checkpoint.every", "checkpoint.keep", "evaluation.every", "evaluation.model"}
    | {"trackers"}
    | {f"{section}.{way}" for section in MODEL_SECTIONS for way in CONNECTION_KEYS}
)
"""Keys, and sections with all their keys, that a resumed run may change: the number of steps, how often the run saves
and evaluates, its trackers, a model's connection and budget, and the model that `sgcd evaluate` plays instead of a
policy. None of them changes what a step computes or which request a model gets. All other keys do, or (the other keys
of evaluation) decide which checkpoint counts as the best."""


def may_change_on_resume(key: str) -> bool:
    """Whether a resumed run may change this key."""
    return any(key == resumable or key.startswith(f"{resumable}.") for resumable in RESUMABLE_KEYS)


def keep_micro_batches(recipe: Recipe, started_recipe: Recipe) -> Recipe:
    """A run keeps the micro-batches that it was started with, where the recipe names none."""
    sections: dict[str, Any] = {}
    for name in ("optimizer", "scoring"):
        section, started = getattr(recipe, name), getattr(started_recipe, name)
        if section.micro_batch_tokens is None:
            sections[name] = section.model_copy(update={"micro_batch_tokens": started.micro_batch_tokens})
    return recipe.model_copy(update=sections)


class KeyDifference(NamedTuple):
    """One key in which two recipes differ."""

    key: str
    old: Any
    new: Any


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every key written out; load(dump(recipe)) == recipe."""
    return dump_yaml(recipe.model_dump(mode="json", by_alias=True))


def recipe_differences(old: Recipe, new: Recipe) -> list[KeyDifference]:
    """The keys in which two recipes differ, in the order of the recipe; a key that one of them lacks counts as null."""
    before, after = (
        flatten_mapping(old.model_dump(mode="json", by_alias=True)),
        flatten_mapping(new.model_dump(mode="json", by_alias=True)),
    )
    paths = dict.fromkeys([*before, *after])
    return [
        KeyDifference(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]
