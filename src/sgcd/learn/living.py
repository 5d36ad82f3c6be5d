"""What the trainer is given: what it reads of a recipe, the living objects of a run, and who watches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sgcd.act.environment import Sampler, Stage
from sgcd.act.settings import SiblingsSettings
from sgcd.contrast.refer import Contrast
from sgcd.credit.methods import Method
from sgcd.endpoint.ask import Endpoint
from sgcd.learn.card import WRITER
from sgcd.learn.clock import ModelThread
from sgcd.learn.policy import Policy
from sgcd.learn.settings import (
    CheckpointSettings,
    OptimizerSettings,
    SamplerSettings,
    ScoringSettings,
    SurrogateSettings,
)
from sgcd.measure.settings import EvaluationSettings
from sgcd.run import RunFolder


class Plan(Protocol):
    """The part of a recipe that the trainer reads."""

    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def siblings(self) -> SiblingsSettings: ...
    @property
    def sampler(self) -> SamplerSettings: ...
    @property
    def surrogate(self) -> SurrogateSettings: ...
    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def scoring(self) -> ScoringSettings: ...
    @property
    def evaluation(self) -> EvaluationSettings: ...
    @property
    def checkpoint(self) -> CheckpointSettings: ...


class Observer(Protocol):
    """Who watches a run. What it is told of stands in the folder; it cannot change anything."""

    def on_phase(self, name: str) -> None: ...

    def on_step(self, row: Mapping[str, Any]) -> None:
        """The row of metrics.jsonl."""
        ...

    def on_evaluation(self, summary: Mapping[str, Any]) -> None:
        """What measure.summary says of the rows of evaluation.jsonl."""
        ...


@dataclass(frozen=True, slots=True)
class Living:
    """The living objects of a run, as assemble makes them."""

    stage: Stage
    policy: Policy
    """As it starts; the trainer itself puts it where the run's newest checkpoint has it."""
    sampler: Sampler
    """Samples from `policy`, in `thread`."""
    method: Method
    contrast: Contrast
    """Asked only where the method needs references."""
    thread: ModelThread
    folder: RunFolder
    endpoint: Endpoint | None = None
    """Of the model that writes references, if one does."""

    @property
    def told(self) -> dict[str, str]:
        """What the card of the policy tells besides the step."""
        return {WRITER: self.endpoint.settings.model} if self.endpoint else {}
