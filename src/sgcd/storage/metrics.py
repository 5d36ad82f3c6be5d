"""The types of a row of metrics.jsonl: the trainer writes `StepMetrics`, and every reader parses it.

Attributes have the names of the JSON keys, except where a field declares its key. A key that an old run does not have
takes its default; a key that this version does not know is ignored.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import AliasChoices, Field

from sgcd.storage.atomic import SCHEMA, Row
from sgcd.storage.credit_metrics import CreditMetrics, Metrics


class TokenCounts(Metrics):
    """Tokens of calls to a model over the network."""

    prompt: int = 0
    answer: int = 0


class CallSeconds(Metrics):
    """Latencies of calls, the failed ones included; None without a call."""

    sum: float = 0.0
    median: float | None = None
    p90: float | None = None
    max: float | None = None


class SpentBudget(Metrics):
    """Totals of the whole run so far."""

    calls: int = 0
    tokens: int = 0
    money: float = 0.0


class EndpointUsage(Metrics):
    """Requests to one model over the network since the previous row, and their cost."""

    requests: int = Field(default=0, validation_alias="asked", serialization_alias="asked")
    cached: int = 0
    """Requests that the cache answered."""
    calls: int = 0
    repeated: int = 0
    """Calls that repeat a failed one."""
    forgotten: int = 0
    """How often the cache could not be used."""
    failures: dict[str, int] = {}
    """Failed calls by kind."""
    unanswered: dict[str, int] = {}
    """Requests without an answer by the kind of the last failure."""
    tokens: TokenCounts = TokenCounts()
    money: float = 0.0
    seconds: CallSeconds = CallSeconds()
    spent: SpentBudget = SpentBudget()

    def to_json(self) -> Row:
        return self.model_dump()


class ToolAudit(Metrics):
    """How the successes on one category of tasks used tools."""

    successes: int = 0
    without_tool: int = 0
    without_tool_share: float | None = None
    tools_per_success: float | None = None


class RolloutMetrics(Metrics):
    """Counts over everything that a step played, kept or not; None where there was nothing to measure."""

    tasks: int = 0
    kept: int = 0
    mixed: int = 0
    uniform_success: int = 0
    uniform_failure: int = 0
    too_few: int = 0
    """Groups with fewer than two unbroken rollouts."""
    rounds: int = 0
    rollouts: int = 0
    """Broken ones included."""
    broken: int = 0
    causes: dict[str, int] = {}
    """Broken rollouts by cause."""
    tokens_sampled: int = 0
    tokens_learnt: int = 0
    reward: float | None = None
    success: float | None = None
    calls: int = 0
    calls_in_error: float | None = None
    malformed_turns: int = 0
    inexact_turns: int = 0
    cuts: dict[str, int] = {}
    """Truncations by the limit that caused them."""
    endings: dict[str, int] = {}
    """Unbroken rollouts by end reason."""
    audit: dict[str, ToolAudit] = {}
    """By category."""


class ReferenceMetrics(Metrics):
    """The credit references of a step's groups."""

    groups: int = 0
    written: int = 0
    causes: dict[str, int] = {}
    """Groups without a reference by cause."""
    by_reward: int = 0
    """References that compare better with worse rewards, as no sibling or every one succeeded."""
    equal: int = 0
    """References with the text of another group's."""
    refused: dict[str, int] = {}
    """Refused texts by reason."""
    example: str = ""
    """One cause in full."""
    replaced: int = 0
    """Literals that were masked."""
    rollouts: int = 0
    """Rollouts whose teacher saw a reference."""
    shortened: int = 0
    """Those of them whose reference lost lines to the model's window."""
    exceeds_window: int = Field(default=0, validation_alias=AliasChoices("exceeds_window", "no_room"))
    """Rollouts that left the reference no room in the model's window."""
    tokens: int = 0


class OptimizerMetrics(Metrics):
    """One step of the optimizer, or the mean over the updates of a step; None for a number that was not measured."""

    lr: float | None = None
    skipped: str = ""
    """Why the policy did not move; empty when it moved."""
    updates: int | None = None
    """How often the policy moved; None in rows of earlier versions."""
    loss: float | None = None
    grad_norm: float | None = None
    """Before clipping."""
    clip_share: float | None = None
    ratio: float | None = None
    kl: float | None = None
    """To the initial policy; None when the recipe has no KL term."""
    entropy: float | None = None


class SupervisedMetrics(Metrics):
    """The batch of a supervised step."""

    epoch: int
    """From one."""
    examples: int
    pairs: int = 0
    """Of siblings with a reference, besides the examples."""
    padding: float | None = None
    """Share of the tokens that a forward pass read as padding."""


class UpdateMetrics(OptimizerMetrics):
    """What the optimizer did in a step, and the references and credit that its gradient came from."""

    sampler_gap_mean: float | None = None
    """Mean difference between the sampler's and the trainer's log-probabilities, in nats."""
    sampler_gap_max: float | None = None
    foreign: int = 0
    """Tokens in the response mask that the policy did not sample."""
    in_graph: int = 0
    """Rows in the training graph that are not kept rollouts."""
    reference: ReferenceMetrics | None = None
    """None for a method without teachers."""
    credit: CreditMetrics | None = None
    """None for a method without teachers."""


class StepMetrics(UpdateMetrics, RolloutMetrics):
    """One row of metrics.jsonl: one step and the rollouts that it was made from."""

    step: int
    peak_memory: int = 0
    """Bytes."""
    invalid: list[str] = []
    """Why this step makes the run invalid."""
    endpoint: EndpointUsage | None = None
    """The model that writes references; None when no model does."""
    user: EndpointUsage | None = None
    """The model that plays the user; None when no model does."""
    supervised: SupervisedMetrics | None = None
    """None for a step that played rollouts."""
    seconds: dict[str, float] = {}
    """By phase, and `total`."""

    @classmethod
    def build(
        cls,
        *,
        step: int,
        rollouts: RolloutMetrics,
        update: UpdateMetrics,
        peak_memory: int,
        endpoint_usage: Mapping[str, EndpointUsage],
        seconds: Mapping[str, float],
    ) -> Self:
        """Join the parts of a step. `endpoint_usage` is by key: `endpoint`, `user`."""
        parts = {**dict(rollouts), **dict(update), **endpoint_usage}
        return cls(step=step, peak_memory=peak_memory, seconds=dict(seconds), **parts)

    @property
    def endpoint_usage(self) -> dict[str, EndpointUsage]:
        """Usage of each model over the network by the role of the model."""
        usage = {"writer": self.endpoint, "user": self.user}
        return {role: part for role, part in usage.items() if part}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        return cls.model_validate(row)

    def to_json(self) -> Row:
        """A section that the run does not have is left out; a value that was not measured is null."""
        row = {"schema": SCHEMA, "step": self.step, **self.model_dump()}
        for section in ("reference", "credit", "endpoint", "user", "supervised"):
            if row[section] is None:
                del row[section]
        for part in ("shuffled", "swapped", "reading", "noise"):
            if self.credit and row["credit"][part] is None:
                del row["credit"][part]
        return row
