"""What the trainer is given: what it reads of a recipe, the living objects of a run, and who watches."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sgcd.act.environment import Sampler, TaskSuite
from sgcd.act.settings import SiblingsSettings
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.credit.methods import Method
from sgcd.endpoint.client import Endpoint
from sgcd.learn.policy.load import Policy
from sgcd.learn.policy.model_card import USER_FACT, WRITER_FACT
from sgcd.learn.settings import (
    CheckpointSettings,
    OptimizerSettings,
    SamplerSettings,
    ScoringSettings,
    SurrogateSettings,
)
from sgcd.learn.training.timers import ModelThread
from sgcd.measure.settings import EvaluationSettings
from sgcd.storage.metrics import EndpointUsage, StepMetrics
from sgcd.storage.run_folder import RunFolder


class TrainConfig(Protocol):
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


class TrainerCallback(Protocol):
    """Who watches a run. What it is told of stands in the folder; it cannot change anything."""

    def on_phase(self, name: str) -> None: ...

    def on_step(self, row: StepMetrics) -> None:
        """The row of metrics.jsonl."""
        ...

    def on_evaluation(self, summary: Mapping[str, Any]) -> None:
        """What measure.summary says of the rows of evaluation.jsonl."""
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """The living objects of a run, as assemble makes them."""

    task_suite: TaskSuite
    policy: Policy
    """As it starts; the trainer itself puts it where the run's newest checkpoint has it."""
    sampler: Sampler
    """Samples from `policy`, in `thread`."""
    method: Method
    reference_builder: ReferenceBuilder
    """Asked only where the method needs references."""
    model_thread: ModelThread
    folder: RunFolder
    writer_endpoint: Endpoint | None = None
    """Of the model that writes references, if one does."""
    user_endpoint: Endpoint | None = None
    """Of the model that plays the user, if one does."""

    @asynccontextmanager
    async def open_endpoints(self) -> AsyncGenerator[None, None]:
        """Models over the network may be asked inside; each has a journal in the run's folder."""
        async with AsyncExitStack() as stack:
            if self.writer_endpoint:
                await stack.enter_async_context(self.writer_endpoint.connect(self.folder.calls_path))
            if self.user_endpoint:
                await stack.enter_async_context(self.user_endpoint.connect(self.folder.user_calls_path))
            yield

    def pop_endpoint_usage(self) -> dict[str, EndpointUsage]:
        """For the row of a step: what each of these models was asked since the last one, and what that cost."""
        endpoints = {"endpoint": self.writer_endpoint, "user": self.user_endpoint}
        return {name: endpoint.usage_tracker.pop_metrics() for name, endpoint in endpoints.items() if endpoint}

    @property
    def model_names(self) -> dict[str, str]:
        """What the card of the policy tells besides the step."""
        endpoints = {WRITER_FACT: self.writer_endpoint, USER_FACT: self.user_endpoint}
        return {name: endpoint.settings.model for name, endpoint in endpoints.items() if endpoint}
