"""The types of the credit in a row of metrics.jsonl, and the base class of all metrics."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Metrics(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class DivergenceMetrics(Metrics):
    """Divergence between student and teacher at creditable tokens, in nats."""

    mean: float | None = None
    median: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


class WeightHistogram(Metrics):
    """Creditable tokens by weight; `num_unit` counts those whose weight is exactly one, which no bin holds."""

    num_unit: int = Field(default=0, validation_alias="one", serialization_alias="one")
    edges: list[float] = []
    counts: list[int] = []


class WeightMetrics(Metrics):
    """The weights of a step's tokens."""

    mean: float | None = None
    """Over all tokens that the policy wrote."""
    clipped: float | None = None
    histogram: WeightHistogram | None = None


class CreditShare(Metrics):
    """One place in a rollout: its share of the weight above one, and its share of the tokens."""

    credit: float | None = None
    tokens: float | None = None


class CreditOverlap(Metrics):
    """Credited tokens under a group's own reference and under another one."""

    rollouts: int = 0
    own_tokens: int = Field(default=0, validation_alias="own", serialization_alias="own")
    other_tokens: int = Field(default=0, validation_alias="other", serialization_alias="other")
    common_tokens: int = Field(default=0, validation_alias="both", serialization_alias="both")
    overlap: float | None = None
    """common / either"""


class ReadingCounts(Metrics):
    """Pairs of a success and a failure of one group, each sibling in one pair at most.

    A reference prefers the success when it raises the log-probability of the success by more than the failure's.
    """

    pairs: int = 0
    own_prefers_success: int = 0
    """Pairs under the group's own reference."""
    next_reference_pairs: int = Field(default=0, validation_alias="foreign_pairs", serialization_alias="foreign_pairs")
    next_reference_prefers_success: int = Field(
        default=0, validation_alias="foreign_prefers_success", serialization_alias="foreign_prefers_success"
    )
    """Pairs under another task's reference."""
    swapped_pairs: int = 0
    own_above_swapped: int = 0
    """Pairs in which the own reference prefers the success more than the one with success and failure exchanged."""


class NoiseMetrics(Metrics):
    """Sums over rollouts with features that tell noise from credit. Tokens are creditable ones."""

    divergence: float = 0.0
    """Sum, in nats; of a token at most one, so that no single token makes the sum."""
    sure_divergence: float = 0.0
    """Its part at tokens where the student's entropy is below .1 nat."""
    extra_weight: float = 0.0
    """Sum of the weights' parts above one."""
    end_extra_weight: float = 0.0
    """Its part on the last tokens of turns and of calls."""
    end_tokens: int = 0
    credited_rollouts: int = 0
    single_token_rollouts: int = 0
    """Those of them whose credit is on one token."""
    entropy_correlation: float | None = None
    """Spearman's, of the divergence and the student's own entropy, over undecided tokens."""


class CreditMetrics(Metrics):
    """A step's credit; tokens are those of rollouts with a reference, or of all where the method has no teacher."""

    weighs: bool = False
    """Whether the method can change a weight at all (gamma is not 0)."""
    rollouts: int = 0
    scored: int = 0
    """Rollouts with features."""
    reasons: dict[str, int] = {}
    """Rollouts without a segment by reason."""
    tokens: int = 0
    creditable: int = 0
    credited: int = 0
    """Creditable tokens with a weight above one."""
    segments: int = 0
    nonfinite: int = 0
    """Tokens whose features are not finite."""
    divergence: DivergenceMetrics = DivergenceMetrics()
    entropy: float | None = None
    gap: float | None = None
    """Teacher's log-probability minus the student's, mean over creditable tokens."""
    weight: WeightMetrics = WeightMetrics()
    where: dict[str, CreditShare] = {}
    """By kind of token; `first` is the beginning of a turn."""
    method: dict[str, Any] = {}
    """The method's state."""
    next_reference: CreditOverlap | None = Field(
        default=None, validation_alias="shuffled", serialization_alias="shuffled"
    )
    """With the next group's reference, in steps with a sample."""
    swapped: CreditOverlap | None = None
    """With success and failure exchanged in the reference, in steps with a sample."""
    reading: list[ReadingCounts] | None = None
    """One entry for each group with a reference, in steps with a sample."""
    noise: NoiseMetrics | None = None
    """None where no rollout has the student's entropy, as in older runs."""
