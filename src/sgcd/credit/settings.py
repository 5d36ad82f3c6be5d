"""Settings of the methods that assign credit to tokens."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.credit.gap_settings import (
    AgentOpsdSettings,
    ContrastPairSettings,
    ContrastSignSettings,
    DirectionGateSettings,
    ExcessSettings,
    GrsdSettings,
    RlsdSettings,
)
from sgcd.credit.signal_settings import (
    ByTurnSettings,
    CentredGateSettings,
    CounterfactualSettings,
    DirectSdSettings,
    GigpoSettings,
    HindsightSettings,
    OpdSettings,
    OpidSettings,
    OpsdSettings,
    ReadingSettings,
    RuleSettings,
    ScopeSettings,
    SdarSettings,
    SdpoSettings,
    SkillSdSettings,
    SodSettings,
    TeacherChoice,
    TurnValuesSettings,
    UcobSettings,
    WeightSettings,
)
from sgcd.settings import (
    UNDECIDED_ENTROPY,
    ComparisonTarget,
    Count,
    Divergence,
    NonNegative,
    ObjectName,
    Positive,
    Settings,
    Share,
    TeacherContext,
    TeacherModel,
)

Scale = Literal["published", "absolute"]


class GrpoSettings(RuleSettings):
    """Every token of a rollout carries the rollout's advantage (2402.03300)."""

    name: Literal["grpo"]


class SegmentSettings(Settings):
    """How spikes of the divergence become segments; the defaults complete the published rule."""

    scale: Scale = "published"
    """Unit of a spike: published, robust deviations above the rollout's median; absolute, nats."""
    spike: Positive | None = None
    """A token this high starts a segment (z_hi): 3, or 0.3 nat on the absolute scale, when not given."""
    saturation: Positive | None = None
    """A spike this high has saliency one, lower ones in proportion (z_sat); twice the spike when not given."""
    quiet: NonNegative | None = None
    """A token this low is quiet (z_lo): 1, or 0.02 nat on the absolute scale, when not given."""
    min_divergence: NonNegative = 0.1
    """Least divergence of a spike in nats, on either scale (d_min): noise earns no credit."""
    spread: Positive = 0.02
    """Least size of one robust deviation in nats (sigma_min)."""
    quiet_tokens: Count = 8
    """This many quiet tokens in a row end a segment (r)."""
    max_tokens: Count = 64
    """Most tokens in a segment (L_max)."""
    entropy_rise: NonNegative = 0.3
    """Least rise of the teacher's entropy above the segment's mean, in nats, that ends the segment (h_min)."""
    entropy_quantile: Share = 0.9
    """A spike counts where the teacher's entropy is within this quantile of the rollout's."""
    min_tokens: Count = 16
    """A rollout with fewer creditable tokens has no segments (N_min)."""


class SgcdSettings(TeacherChoice, ReadingSettings):
    """The advantage, concentrated where a teacher that reads the siblings' contrast disagrees (2606.12634)."""

    name: Literal["sgcd"]
    teacher: TeacherModel = "current"
    """Which policy reads the reference: current, as published; average, initial or outside, see sod (extensions)."""
    context: TeacherContext = "reference"
    """What it reads: reference, as published; the others, see sod, are controls."""
    divergence: Divergence = "reverse_kl"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Number of the teacher's top tokens; they, the observed token and all others together are the outcomes."""
    segments: SegmentSettings = SegmentSettings()
    """How spikes of the divergence become segments."""
    gamma: NonNegative = 1.0
    """Weight gained at saliency one; 0 is GRPO to the last bit."""
    cap: Annotated[float, Field(gt=1)] = 2.0
    """Weights stay at or below it."""
    floor: Share = 1.0
    """Weights stay at or above it. Below one is an extension: tokens outside segments lose gamma, down to it."""
    mean_one: bool = False
    """Scale the weights of a rollout to mean one, within floor and cap (an extension; inert while the floor is one)."""
    direction_gate: bool = False
    """Only segments whose first token the teacher moves the way of the advantage keep their saliency (an extension)."""
    compare_with: ComparisonTarget = "student"
    """What the teacher is compared with: the student, as published; the teacher that reads the same
    siblings with success and failure exchanged (swapped); or the one that reads the next group's reference
    (next_reference). Between two teachers words, length and place of a text cancel, for one more forward pass."""
    min_entropy: NonNegative = UNDECIDED_ENTROPY
    """Only a token at which the student's entropy is at least this, in nats, may have credit: elsewhere nothing was
    decided. 0 is the published rule: every token that is no masked literal may."""
    min_entropy_quantile: Share | None = None
    """Raise min_entropy in each step to this quantile of the student's entropy over the step's tokens, for one more
    forward pass."""
    calibrate: bool = False
    """Choose the spike on the first batch, the smallest of four that credits at most 15 % of its tokens."""


class EntropySettings(WeightSettings):
    """More weight where the policy itself is undecided, without a teacher: what every teacher has to beat."""

    name: Literal["entropy"]
    saturation: Positive = 1.0
    """A token with this entropy, in nats, has a full share; lower ones in proportion."""


class SurprisalSettings(WeightSettings):
    """More weight on tokens that the policy itself found unlikely, without a teacher."""

    name: Literal["surprisal"]
    saturation: Positive = 1.0
    """A token with this surprisal, in nats, has a full share; lower ones in proportion."""


class PartingMethodSettings(WeightSettings):
    """More weight where a rollout parts from siblings of the other outcome, without a teacher."""

    name: Literal["parting"]
    decay: Share = 0.5
    """A later place where two siblings part has this much of the share of the place before it."""


class ThinkingMaskSettings(RuleSettings):
    """Less weight on thinking, without a teacher."""

    name: Literal["thinking_mask"]
    weight: Share = 0.2
    """Weight of a token of thinking; 1 is GRPO to the last bit."""


class RandomSettings(WeightSettings):
    """Weights drawn at random: the control for a method with the same share and size of weights."""

    name: Literal["random"]
    share: Share = 0.1
    """Share of tokens that are drawn; each has a share of the credit between nothing and a full one."""


class TurnSgcdSettings(ReadingSettings, WeightSettings):
    """SGCD by turns: a turn's weight follows from the divergence of all its tokens together."""

    name: Literal["turn_sgcd"]
    divergence: Divergence = "reverse_kl"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Number of the teacher's top tokens; they, the observed token and all others together are the outcomes."""
    low: Share = 0.2
    """Weight of a turn without divergence, before the division by the mean."""
    high: Annotated[float, Field(ge=1)] = 1.0
    """Weight of the turn with the most, before the division by the mean."""
    mean_one: bool = True
    """Divide the weights of a rollout by their mean."""


class DepartureSettings(ReadingSettings, WeightSettings):
    """Segments from a spike of the divergence to where the policy is undecided again (after GEAR, 2605.11853)."""

    name: Literal["departure"]
    divergence: Divergence = "reverse_kl"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Number of the teacher's top tokens; they, the observed token and all others together are the outcomes."""
    spike: Positive = 0.3
    """A token with this divergence, in nats, opens a segment."""
    saturation: Positive = 0.6
    """A token with this divergence has a full share of the credit, lower ones in proportion."""
    end_entropy: Positive = UNDECIDED_ENTROPY
    """A segment ends before the next token at which the policy's entropy is at least this, in nats."""


class OwnMethodSettings(RuleSettings):
    """A credit rule of your own: a plain Python class with a method signal()."""

    name: Literal["own"]
    class_: Annotated[ObjectName, Field(alias="class")]
    """Where the class is, as module:Class; the current folder is on the path."""


MethodSettings = Annotated[
    GrpoSettings
    | SgcdSettings
    | TurnSgcdSettings
    | EntropySettings
    | SurprisalSettings
    | PartingMethodSettings
    | ThinkingMaskSettings
    | RandomSettings
    | DepartureSettings
    | ContrastPairSettings
    | ContrastSignSettings
    | ExcessSettings
    | DirectionGateSettings
    | RlsdSettings
    | GrsdSettings
    | AgentOpsdSettings
    | OpdSettings
    | OpidSettings
    | SkillSdSettings
    | SodSettings
    | SdarSettings
    | CentredGateSettings
    | CounterfactualSettings
    | GigpoSettings
    | ByTurnSettings
    | TurnValuesSettings
    | HindsightSettings
    | DirectSdSettings
    | OpsdSettings
    | SdpoSettings
    | ScopeSettings
    | UcobSettings
    | OwnMethodSettings,
    Field(discriminator="name"),
]
