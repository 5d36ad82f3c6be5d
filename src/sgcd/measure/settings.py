"""Settings of the evaluation on held-out tasks."""

from typing import Literal

from sgcd.endpoint.settings import ServerSettings
from sgcd.settings import Count, NonNegativeCount, Positive, Settings


class ModelSettings(ServerSettings):
    """Any chat model with native tool calls, evaluated instead of a policy."""

    temperature: Literal["trial"] | None = "trial"
    """trial: the temperature of each trial, 0 for the greedy one; null leaves it to the server."""


class EvaluationSettings(Settings):
    """Held-out evaluation: before the first step, every so often, and after the last."""

    split: Literal["dev", "test", "test_normal", "test_challenge"] = "dev"
    """The held-out tasks. They choose the best checkpoint, so keep test for the end. AppWorld has two tests."""
    every: Count = 10
    """Steps between validations."""
    tasks: Count | None = None
    """How many tasks, from the first on; null is all."""
    trials: NonNegativeCount = 3
    """Sampled trials of each task."""
    greedy: bool = True
    """Also play each task once at temperature zero."""
    temperature: Positive = 1.0
    """Temperature of the sampled trials."""
    model: ModelSettings | None = None
    """The model that `sgcd evaluate RECIPE` evaluates; training never calls it."""
