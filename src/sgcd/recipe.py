"""A run's recipe: each room declares its settings, this composes them; YAML and key=value, checked whole."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.act.settings import OwnEnvironment, SiblingsSettings
from sgcd.contrast.settings import ReferenceSettings
from sgcd.credit.settings import Method
from sgcd.lab.settings import LabEnvironment
from sgcd.learn.settings import (
    CheckpointSettings,
    OptimizerSettings,
    PolicySettings,
    SamplerSettings,
    ScoringSettings,
    SurrogateSettings,
)
from sgcd.measure.settings import EvaluationSettings
from sgcd.settings import Settings


class Recipe(Settings):
    """All that a run is told."""

    version: Literal[1]
    """Version of this format."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random follows from it."""
    steps: Annotated[int, Field(ge=1)]
    """Optimiser steps."""
    policy: PolicySettings
    environment: Annotated[LabEnvironment | OwnEnvironment, Field(discriminator="name")]
    siblings: SiblingsSettings = SiblingsSettings()
    sampler: SamplerSettings = SamplerSettings()
    reference: ReferenceSettings = ReferenceSettings()
    method: Method
    surrogate: SurrogateSettings = SurrogateSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    scoring: ScoringSettings = ScoringSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
