"""The trainer's inputs: its part of a recipe, the objects of a run, and the callback."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from sgcd.act.environment import Sampler, TaskSuite
from sgcd.act.settings import Limits, SiblingsSettings
from sgcd.act.siblings import PlayContext
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.credit.methods import Method
from sgcd.endpoint.client import Endpoint, check_endpoints, connect_endpoints, pop_endpoint_metrics
from sgcd.learn.policy.load import Policy
from sgcd.learn.policy.model_card import USER_FACT, WRITER_FACT
from sgcd.learn.policy.teacher_policies import TeacherPolicies
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.settings import (
    CheckpointSettings,
    OptimizerSettings,
    SamplerSettings,
    ScoringSettings,
    SurrogateSettings,
    TeacherSettings,
)
from sgcd.learn.training.timers import ModelThread
from sgcd.measure.settings import EvaluationSettings
from sgcd.settings import Control
from sgcd.storage.metrics import EndpointUsage, StepMetrics
from sgcd.storage.run_folder import RunFolder


class TrainConfig(Protocol):
    """The part of a recipe that the trainer reads."""

    @property
    def seed(self) -> int: ...
    @property
    def control(self) -> Control: ...
    @property
    def steps(self) -> int: ...
    @property
    def siblings(self) -> SiblingsSettings: ...
    @property
    def sampler(self) -> SamplerSettings: ...
    @property
    def teacher(self) -> TeacherSettings: ...
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


def scoring_forward_config(config: TrainConfig) -> ForwardConfig:
    """The forward settings of passes without a gradient."""
    return ForwardConfig.build(config.sampler.temperature, config.scoring.micro_batch_tokens, config.scoring)


def training_forward_config(config: TrainConfig) -> ForwardConfig:
    """The forward settings of the pass with the gradient."""
    return ForwardConfig.build(config.sampler.temperature, config.optimizer.micro_batch_tokens, config.scoring)


class TrainerCallback(Protocol):
    """Receives a run's progress. It gets only what the run's folder also has, and changes nothing."""

    def on_phase(self, name: str) -> None: ...

    def on_step(self, row: StepMetrics) -> None:
        """The row of metrics.jsonl."""
        ...

    def on_evaluation(self, summary: Mapping[str, Any]) -> None:
        """The summary of the rows of evaluation.jsonl, by measure.summary."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The objects that a recipe describes, built by assemble."""

    task_suite: TaskSuite
    policy: Policy
    """The policy at its start; the trainer loads the run's newest checkpoint into it."""
    sampler: Sampler
    """Samples from `policy`, in `model_thread`."""
    method: Method
    reference_builder: ReferenceBuilder
    """Used only where the method needs references."""
    model_thread: ModelThread
    teacher_policies: TeacherPolicies = field(default_factory=TeacherPolicies)
    """What the recipe names for the method's teachers; the trainer adds what is made of the policy."""
    writer_endpoint: Endpoint | None = None
    """The writer's endpoint, where the method needs references and a model writes them."""
    user_endpoint: Endpoint | None = None
    """The simulated user's endpoint, where the environment has one."""

    def play_context(self, limits: Limits) -> PlayContext:
        """What playing a rollout of the policy takes."""
        return PlayContext(task_suite=self.task_suite, chat=self.policy.chat, sampler=self.sampler, limits=limits)

    @property
    def _endpoints(self) -> dict[str, Endpoint]:
        """By the name of their usage in metrics.jsonl."""
        endpoints = {"endpoint": self.writer_endpoint, "user": self.user_endpoint}
        return {name: endpoint for name, endpoint in endpoints.items() if endpoint}

    def check_ready(self) -> None:
        """Refuse what would fail at the first call to a model. Nothing is called."""
        check_endpoints(self._endpoints)

    def open_endpoints(self, folder: RunFolder) -> AbstractAsyncContextManager[None]:
        """Connect the endpoints; each has a journal in the run's folder."""
        return connect_endpoints(self._endpoints, {"endpoint": folder.calls_path, "user": folder.user_calls_path})

    def pop_endpoint_usage(self) -> dict[str, EndpointUsage]:
        """Calls, tokens and cost of each endpoint since the last step, for its row."""
        return pop_endpoint_metrics(self._endpoints)

    @property
    def model_names(self) -> dict[str, str]:
        """The models behind endpoints, for the policy's card."""
        endpoints = {WRITER_FACT: self.writer_endpoint, USER_FACT: self.user_endpoint}
        return {name: endpoint.settings.model for name, endpoint in endpoints.items() if endpoint}
