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
    """The part of the objective that a method has besides GRPO's, and the folder of its file unless it is credit."""
    folder: ClassVar[str] = ""
    """The folder of a method's file in credit/methods/, where it is not that of its role."""
    name: Any


class WeightSettings(RuleSettings):
    """Weights between two numbers, by each token's share of the credit; both one is GRPO to the last bit."""

    low: Share = 1.0
    """Weight of a token without a share."""
    high: Annotated[float, Field(ge=1)] = 2.0
    """Weight of a token with a full share."""
    mean_one: bool = False
    """Divide the weights of a rollout by their mean."""


class ReadingSettings(RuleSettings):
    """What is common to methods whose weights or pull come from a teacher that reads the reference."""

    require_reading: bool = True
    """A rollout learns as with GRPO once a sample of pairs has shown that the policy does not read its references. No
    published rule has such a test."""


class TeacherChoice(RuleSettings):
    """What is common to methods whose teacher a recipe names."""

    teacher: TeacherModel = "current"
    """current: the policy as it is now; average: its moving average (teacher.decay); initial: the policy when the run
    began; outside: the policy that teacher.start names."""
    context: TeacherContext = "reference"
    """What the teacher's prompt holds besides the rollout's: reference, the group's credit reference; swapped, the same
    with success and failure exchanged; next_reference, that of the next group; leave_one_out, one written without the
    rollout itself; neutral, a text of the same length that says nothing; sibling, another sibling's success, step by
    step; answer, the last answer of such a sibling, which is a leak, for study; skill, the text that teacher.skill
    names; none, nothing."""


class GapSettings(TeacherChoice, ReadingSettings):
    """A pull from a teacher's log-ratio of the sampled tokens."""

    role: ClassVar[Role] = "pull"
    coefficient: NonNegative
    """Factor of the pull."""


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


class OpidSettings(GapSettings):
    """On-policy distillation with a small coefficient, beside the reward (2606.26790)."""

    name: Literal["opid"]
    coefficient: NonNegative = 0.001
    """Factor of the log-ratio; 0 is GRPO to the last bit."""


class SkillSdSettings(GapSettings):
    """A divergence on the sampled tokens, k3, as far as it moves the policy in a batch's first update (2604.10674)."""

    name: Literal["skill_sd"]
    coefficient: NonNegative = 0.001
    """Factor of the divergence; 0 is GRPO to the last bit."""


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


class CentredGateSettings(ReadingSettings):
    """A gate on the direction of the teacher, less what it would have given with a permuted verdict."""

    role: ClassVar[Role] = "pull"
    name: Literal["centred_gate"]
    floor: Share = 0.2
    """Weight of a token that teacher and advantage do not move the same way; 1 is GRPO to the last bit."""


class CounterfactualSettings(ReadingSettings):
    """A pull to the teacher where siblings that it prefers did better, and away from it elsewhere (after CRAFT)."""

    role: ClassVar[Role] = "pull"
    name: Literal["counterfactual"]
    coefficient: NonNegative = 1.0
    """Factor of the pull; 0 is GRPO to the last bit."""
    max_ratio: Annotated[float, Field(gt=1)] = 5.0
    """The importance of a sibling's turn stays between the inverse of this and this."""


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


class TurnValuesSettings(RuleSettings):
    """What siblings achieved who took a turn's action in its state, less what all achieved from there."""

    role: ClassVar[Role] = "pull"
    name: Literal["turn_values"]
    coefficient: NonNegative = 1.0
    """Share of the turn's advantage in a token's, the rest being the rollout's; 0 is GRPO to the last bit."""
    thinking: Share = 1.0
    """Factor of the turn's advantage on tokens of thinking."""


class HindsightSettings(ReadingSettings):
    """A turn's return, times how much likelier the turn is for a teacher that knows what succeeded (after HCAPO)."""

    role: ClassVar[Role] = "pull"
    name: Literal["hindsight"]
    coefficient: NonNegative = 1.0
    """Factor of the turn's advantage; 0 is GRPO to the last bit."""
    max_ratio: Annotated[float, Field(gt=1)] = 1.2
    """The ratio of a turn's probabilities stays between the inverse of this and this."""


class ImitationSettings(RuleSettings):
    """What is common to methods with a divergence in the loss."""

    role: ClassVar[Role] = "imitate"
    divergence: Divergence = "reverse_kl"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    k: Count = 100
    """Number of top tokens; they, the observed token and all others together are the outcomes."""
    coefficient: NonNegative
    """Factor of the divergence in the loss, a mean over tokens; 0 is GRPO to the last bit."""


class DirectSdSettings(ImitationSettings):
    """GRPO, and in its loss the divergence between the policy and itself with the reference in its prompt."""

    name: Literal["direct_sd"]
    coefficient: NonNegative = 0.1
    """Factor of the divergence in the loss, a mean over tokens; 0 is GRPO to the last bit."""


class OpsdSettings(ImitationSettings):
    """On-policy self-distillation: the divergence to the initial policy with the reference, without a reward."""

    name: Literal["opsd"]
    divergence: Divergence = "jsd"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    coefficient: Positive = 1.0
    """Factor of the divergence in the loss, a mean over tokens."""
    reward_coefficient: NonNegative = 0.0
    """Factor of the advantage over siblings; 0, as published, distils without any reward."""


class SdpoSettings(TeacherChoice, ImitationSettings):
    """Self-distillation from a moving average of the policy that reads a successful sibling, without a reward."""

    name: Literal["sdpo"]
    teacher: TeacherModel = "average"
    """Whose distribution is imitated; see sod."""
    context: TeacherContext = "sibling"
    """What the teacher's prompt holds besides the rollout's; see sod."""
    support: Support = "student"
    """Whose top tokens are the outcomes, with the observed token and the tail."""
    divergence: Divergence = "jsd"
    """Between student p and teacher q: reverse_kl is KL(p||q), forward_kl is KL(q||p), jsd is symmetric."""
    coefficient: Positive = 1.0
    """Factor of the divergence in the loss, a mean over tokens."""
    reward_coefficient: NonNegative = 0.0
    """Factor of the advantage over siblings; 0, as published, distils without any reward."""


class ScopeSettings(ImitationSettings):
    """Failures imitate a teacher, successes become likelier; both by how sure teacher and student are (2604.10688)."""

    name: Literal["scope"]
    k: Count = 16
    """Number of top tokens; they, the observed token and all others together are the outcomes."""
    coefficient: NonNegative = 1.0
    """Factor of both paths, means over tokens."""
    temperature: Positive = 1.0
    """Of the softmax over the successes, and over the failures, of a group."""
    reward_coefficient: NonNegative = 0.0
    """Factor of the advantage over siblings; published is 0. With 1, and a coefficient of 0, it is GRPO."""


class UcobSettings(ImitationSettings):
    """Turns that did better than siblings from the same state imitate a teacher (after UCOB, 2606.29502)."""

    name: Literal["ucob"]
    k: Count = 32
    """Number of top tokens; they, the observed token and all others together are the outcomes."""
    coefficient: NonNegative = 0.1
    """Factor of the divergence in the loss, a mean over tokens; 0 is GRPO to the last bit."""
    margin: NonNegative = 0.05
    """A turn imitates where its return is more than this above the mean of its siblings' from the same state."""
    scale: Positive = 0.2
    """A turn's weight is that difference over this, at most two."""
    sharpness: NonNegative = 5.0
    """Slope of the gate on each token's log-ratio."""
    call_weight: Positive = 2.0
    """Factor of the weight of a call's tokens."""
    discount: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Of the reward, for each turn that comes after."""
