"""Settings of evaluations on held-out tasks."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.endpoint.settings import ServerSettings
from sgcd.settings import Settings


class ModelSettings(ServerSettings):
    """Any chat model with native tool calls, played instead of a policy."""

    temperature: Literal["trial"] | None = "trial"
    """`trial`: the temperature of each trial, 0 when greedy; null: the server decides."""


class EvaluationSettings(Settings):
    """Held-out evaluation: before the first step, every so often, and after the last."""

    split: Literal["dev", "test"] = "dev"
    """Which held-out tasks; the best checkpoint is chosen on them, so leave test for the end."""
    every: Annotated[int, Field(ge=1)] = 10
    """Steps between evaluations."""
    tasks: Annotated[int, Field(ge=1)] | None = None
    """How many tasks, from the first on; all when not given."""
    trials: Annotated[int, Field(ge=0)] = 3
    """Sampled trials of each task."""
    greedy: bool = True
    """Also play each task once at temperature zero."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the sampled trials."""
    model: ModelSettings | None = None
    """The model that `sgcd evaluate RECIPE` plays these tasks with; training does not use it."""
