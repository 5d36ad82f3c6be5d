"""Settings of the credit room: which method says what a token deserves."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.settings import Divergence, Settings, TeacherContext, TeacherModel

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Scale = Literal["published", "absolute"]


class GrpoSettings(Settings):
    """Every token of a rollout carries the rollout's advantage (2402.03300)."""

    name: Literal["grpo"]


class SegmentSettings(Settings):
    """How spikes of the divergence become segments; the defaults are the published rule, completed."""

    scale: Scale = "published"
    """What a spike counts: published, robust deviations above the rollout's own median; absolute, nats."""
    spike: Positive | None = None
    """A token this high starts a segment (z_hi): 3, or 0.3 nat on the absolute scale, when not given."""
    full: Positive | None = None
    """A spike this high has saliency one, lower ones in proportion (z_sat); twice the spike when not given."""
    quiet: NotNegative | None = None
    """A token this low is quiet (z_lo): 1, or 0.02 nat on the absolute scale, when not given."""
    least: NotNegative = 0.1
    """Nats of divergence that a spike has at least, whatever the scale (d_min): noise is no credit."""
    spread: Positive = 0.02
    """Nats that a robust deviation is worth at least (sigma_min)."""
    reset: Count = 8
    """This many quiet tokens in a row end a segment (r)."""
    longest: Count = 64
    """Tokens in a segment at most (L_max)."""
    rise: NotNegative = 0.3
    """Nats by which the teacher's entropy may exceed the segment's mean before the segment ends, at least (h_min)."""
    confident: Share = 0.9
    """A spike counts where the teacher's entropy is within this quantile of the rollout's."""
    tokens: Count = 16
    """A rollout with fewer creditable tokens has no segments (N_min)."""


class SgcdSettings(Settings):
    """The advantage, concentrated where a teacher that was shown the siblings' contrast disagrees (2606.12634)."""

    name: Literal["sgcd"]
    divergence: Divergence = "reverse_kl"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Tokens of the teacher's own that are told apart; the observed token joins them, the rest is one outcome."""
    segments: SegmentSettings = SegmentSettings()
    """How spikes of the divergence become segments."""
    gamma: NotNegative = 1.0
    """Weight gained at saliency one; 0 is GRPO to the last bit."""
    cap: Annotated[float, Field(gt=1)] = 2.0
    """Weights stay at or below it."""
    floor: Share = 1.0
    """Weights stay at or above it. Below one is an extension: tokens outside segments lose gamma, down to it."""
    mean_one: bool = False
    """Scale the weights of a rollout to mean one, within floor and cap (an extension; inert while the floor is one)."""
    direction_gate: bool = False
    """Only segments whose first token the teacher moves the way of the advantage keep their saliency (an extension)."""
    calibrate: bool = False
    """Choose the spike on the first batch, the smallest of four that credits at most 15 % of its tokens."""


class OpdSettings(Settings):
    """On-policy distillation: the teacher's log-ratio of each sampled token is added to the advantage."""

    name: Literal["opd"]
    k: Count = 20
    """Tokens of the teacher's own that are kept apart; the sampled token always is."""
    teacher: TeacherModel = "current"
    """The policy as it is now, or as it was when the run began."""
    context: TeacherContext = "reference"
    """What the teacher's prompt holds besides the rollout's: the group's reference, the next group's, or none."""
    coefficient: NotNegative = 1.0
    """Of the log-ratio."""
    reward_coefficient: NotNegative = 1.0
    """Of the advantage over siblings; 0 distils without any reward."""


class DirectSdSettings(Settings):
    """GRPO, and in its loss the divergence between the policy and itself with the reference in its prompt."""

    name: Literal["direct_sd"]
    divergence: Divergence = "reverse_kl"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Tokens of the teacher's own that are kept apart; the observed token joins them, the rest is one outcome."""
    coefficient: NotNegative = 0.1
    """Of the divergence in the loss, a mean over tokens."""


MethodSettings = Annotated[GrpoSettings | SgcdSettings | OpdSettings | DirectSdSettings, Field(discriminator="name")]
