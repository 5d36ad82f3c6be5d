"""Settings of the credit methods that read a teacher's log-ratio, or compare two teachers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sgcd.credit.signal_settings import ReadingSettings, WeightSettings
from sgcd.settings import UNDECIDED_ENTROPY, Count, NonNegative, Positive, Share

ShareOrNone = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]


class TwoTeacherSettings(ReadingSettings, WeightSettings):
    """What is common to methods that compare two teachers."""

    folder: ClassVar[str] = "two_teachers"
    min_entropy: NonNegative = UNDECIDED_ENTROPY
    """Only a token at which the student's entropy is at least this, in nats, may have a share: elsewhere nothing was
    decided."""


class ContrastPairSettings(TwoTeacherSettings):
    """More weight where the own reference and the one with success and failure exchanged part."""

    name: Literal["contrast_pair"]
    saturation: Positive = 1.0
    """A token at which the two log-probabilities differ by this, in nats, has a full share; lower ones in
    proportion."""


class ContrastSignSettings(TwoTeacherSettings):
    """More weight where the own reference moves a token further the way of the advantage than the exchanged one."""

    name: Literal["contrast_sign"]
    saturation: Positive = 1.0
    """A token at which the two log-probabilities differ by this, in nats, the way of the advantage has a full share."""


class ExcessSettings(TwoTeacherSettings):
    """More weight where the own reference moves the policy further than a text that says nothing of its task."""

    name: Literal["excess"]
    beyond: Literal["neutral", "next_reference"] = "neutral"
    """The other text: one of equal length that says nothing, or the next group's reference."""
    saturation: Positive = 0.3
    """A token with this much more divergence, in nats, has a full share; lower ones in proportion."""


class DirectionGateSettings(ReadingSettings):
    """Less weight where the teacher does not move a token the way of the advantage."""

    name: Literal["direction_gate"]
    floor: Share = 0.2
    """Weight of such a token; 1 is GRPO to the last bit."""


class RlsdSettings(ReadingSettings):
    """The teacher's log-ratio of each token, in the direction of the advantage, as its weight (2604.03128)."""

    name: Literal["rlsd"]
    strength: ShareOrNone = 0.5
    """Share of the weight that the teacher has in the beginning; 0 is GRPO to the last bit."""
    clip: OpenShare = 0.2
    """Weights of the teacher stay within one less this and one more this."""
    decay_steps: Count | None = 50
    """The strength falls linearly to nothing over this many steps; null keeps it."""


class GrsdSettings(ReadingSettings):
    """A turn's mean log-ratio, in the direction of the advantage and by the group's scale, as weight (2607.28076)."""

    name: Literal["grsd"]
    strength: ShareOrNone = 0.5
    """Factor of a turn's value; 0 is GRPO to the last bit."""
    clip: OpenShare = 0.2
    """A turn's value stays within plus and minus this."""


class AgentOpsdSettings(ReadingSettings):
    """Turns weigh by how much they revise the belief that the rollout succeeds (2608.05987)."""

    name: Literal["agent_opsd"]
    strength: ShareOrNone = 0.5
    """Share of the weight that the belief has; 0 is GRPO to the last bit."""
    band: OpenShare = 0.2
    """Weights of the belief stay within one less this and one more this."""
    prior: OpenShare = 0.5
    """Belief before the first turn."""
