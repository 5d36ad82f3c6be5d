"""What the trainer is given: what it reads of a recipe, the living objects of a run, and who watches."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sgcd.act.environment import Sampler, Stage
from sgcd.act.settings import SiblingsSettings
from sgcd.contrast.refer import Contrast
from sgcd.credit.methods import Method
from sgcd.endpoint.ask import Endpoint
from sgcd.learn.card import USER, WRITER
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
    user: Endpoint | None = None
    """Of the model that plays the user, if one does."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        """Models over the network may be asked inside; each has a journal in the run's folder."""
        async with AsyncExitStack() as open_ones:
            if self.endpoint:
                await open_ones.enter_async_context(self.endpoint.opened(self.folder.calls_path))
            if self.user:
                await open_ones.enter_async_context(self.user.opened(self.folder.user_calls_path))
            yield

    def asked(self) -> dict[str, Any]:
        """For the row of a step: what each of these models was asked since the last one, and what that cost."""
        both = {"endpoint": self.endpoint, "user": self.user}
        return {name: each.account.split() for name, each in both.items() if each}

    @property
    def told(self) -> dict[str, str]:
        """What the card of the policy tells besides the step."""
        both = {WRITER: self.endpoint, USER: self.user}
        return {name: each.settings.model for name, each in both.items() if each}
