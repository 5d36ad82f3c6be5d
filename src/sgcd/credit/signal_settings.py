"""Settings of the methods whose signal has a pull or an imitation besides credit, and what is common to all methods."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sgcd.settings import (
    Count,
    Divergence,
    NonNegative,
    Positive,
    Settings,
    Share,
    Support,
    TeacherContext,
    TeacherModel,
)

Role = Literal["credit", "pull", "imitate"]


class RuleSettings(Settings):
    """What is common to all methods."""

    role: ClassVar[Role] = "credit"
    """The part of the objective that a method has besides GRPO's, and the folder of its file."""
    name: Any


class GapSettings(RuleSettings):
    """A pull from a teacher's log-ratio of the sampled tokens."""

    role: ClassVar[Role] = "pull"
    name: Any
    teacher: TeacherModel = "current"
    """current: the policy as it is now; average: its moving average (teacher.decay); initial: the policy when the run
    began; outside: the policy that teacher.start names."""
    context: TeacherContext = "reference"
    """What the teacher's prompt holds besides the rollout's: reference, the group's credit reference; swapped, the same
    with success and failure exchanged; next_reference, that of the next group; leave_one_out, one written without the
    rollout itself; neutral, a text of the same length that says nothing; sibling, another sibling's success, step by
    step; answer, the last answer of such a sibling, which is a leak, for study; skill, the text that teacher.skill
    names; none, nothing."""


class OpdSettings(GapSettings):
    """On-policy distillation: the teacher's log-ratio of each sampled token is added to the advantage."""

    role: ClassVar[Role] = "pull"
    name: Literal["opd"]
    k: Count = 20
    """Number of the teacher's top tokens that are kept apart; the sampled token always is."""
    coefficient: NonNegative = 1.0
    """Factor of the log-ratio."""
    reward_coefficient: NonNegative = 1.0
    """Factor of the advantage over siblings; 0 distils without any reward."""


class SodSettings(GapSettings):
    """On-policy distillation, less where a turn is further from the teacher than the first one was (2605.07725)."""

    name: Literal["sod"]
    coefficient: NonNegative = 1.0
    """Factor of the weighted log-ratio; 0 is GRPO to the last bit."""
    margin: NonNegative = 0.2
    """A turn's weight is at most one and this."""


class SdarSettings(GapSettings):
    """Sampled tokens become likelier, more where the teacher agrees (2605.15155)."""

    name: Literal["sdar"]
    coefficient: NonNegative = 0.01
    """Factor of the gated term; 0 is GRPO to the last bit."""
    sharpness: NonNegative = 5.0
    """Slope of the gate; 0 is GRPO with ungated distillation of the sampled token (GRPO + OPSD)."""


class CentredGateSettings(RuleSettings):
    """A gate on the direction of the teacher, less what it would have given with a permuted verdict."""

    role: ClassVar[Role] = "pull"
    name: Literal["centred_gate"]
    floor: Share = 0.2
    """Weight of a token that teacher and advantage do not move the same way; 1 is GRPO to the last bit."""


class GigpoSettings(RuleSettings):
    """A second advantage, over the turns of siblings that start from the same state (2505.10978)."""

    role: ClassVar[Role] = "pull"
    name: Literal["gigpo"]
    coefficient: NonNegative = 1.0
    """Factor of the turn's advantage; 0 is GRPO to the last bit."""
    discount: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Of the reward, for each turn that comes after."""
    scale_by_std: bool = False
    """Divide a turn's advantage by the standard deviation of its state's returns."""


class ByTurnSettings(RuleSettings):
    """The advantage of each part's own verdict on that part's tokens, where an environment gives verdicts by turn."""

    role: ClassVar[Role] = "pull"
    name: Literal["by_turn"]
    coefficient: NonNegative = 1.0
    """Share of the part's advantage in a token's, the rest being the rollout's; 0 is GRPO to the last bit."""
    thinking: Share = 1.0
    """Factor of the part's advantage on tokens of thinking."""


class HindsightSettings(RuleSettings):
    """A turn's return, times how much likelier the turn is for a teacher that knows what succeeded (after HCAPO)."""

    role: ClassVar[Role] = "pull"
    name: Literal["hindsight"]
    coefficient: NonNegative = 1.0
    """Factor of the turn's advantage; 0 is GRPO to the last bit."""
    max_ratio: Annotated[float, Field(gt=1)] = 1.2
    """The ratio of a turn's probabilities stays between the inverse of this and this."""


class DirectSdSettings(RuleSettings):
    """GRPO, and in its loss the divergence between the policy and itself with the reference in its prompt."""

    role: ClassVar[Role] = "imitate"
    name: Literal["direct_sd"]
    divergence: Divergence = "reverse_kl"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Number of the teacher's top tokens; they, the observed token and all others together are the outcomes."""
    coefficient: NonNegative = 0.1
    """Factor of the divergence in the loss, a mean over tokens."""


class OpsdSettings(RuleSettings):
    """On-policy self-distillation: the divergence to the initial policy with the reference, without a reward."""

    role: ClassVar[Role] = "imitate"
    name: Literal["opsd"]
    divergence: Divergence = "jsd"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Number of the teacher's top tokens; they, the observed token and all others together are the outcomes."""
    coefficient: Positive = 1.0
    """Factor of the divergence in the loss, a mean over tokens."""
    reward_coefficient: NonNegative = 0.0
    """Factor of the advantage over siblings; 0, as published, distils without any reward."""


class SdpoSettings(GapSettings):
    """Self-distillation from a moving average of the policy that reads a successful sibling, without a reward."""

    role: ClassVar[Role] = "imitate"
    name: Literal["sdpo"]
    teacher: TeacherModel = "average"
    """Whose distribution is imitated; see sod."""
    context: TeacherContext = "sibling"
    """What the teacher's prompt holds besides the rollout's; see sod."""
    support: Support = "student"
    """Whose top tokens are the outcomes, with the observed token and the tail."""
    divergence: Divergence = "jsd"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Number of the top tokens; they, the observed token and all others together are the outcomes."""
    coefficient: Positive = 1.0
    """Factor of the divergence in the loss, a mean over tokens."""
    reward_coefficient: NonNegative = 0.0
    """Factor of the advantage over siblings; 0, as published, distils without any reward."""
