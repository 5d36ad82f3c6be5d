"""The gradient of one batch's loss, added up micro-batch by micro-batch, and the sums that the metrics need.

In the first update of a batch one forward pass serves the ratio, the method and the gradient: the ratio starts from the
pass itself and is one. Further updates learn from advantages that are known, and from that pass's log-probabilities.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from sgcd.credit_records import Signal
from sgcd.learn.scoring.forward import (
    ForwardConfig,
    pack_policy_tokens,
    score_logprobs,
    split_micro_batches,
    unpack_policy_tokens,
)
from sgcd.learn.scoring.student import OutcomesByTeacher, StudentForward, TeacherComparison, score_student
from sgcd.learn.scoring.teacher import TeacherOutcomes
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import (
    BatchSize,
    PackedTokens,
    choose_by_covariance,
    sum_for_average,
    surrogate_loss,
)
from sgcd.records import Flags, Floats, Rollout, check_length
from sgcd.settings import Divergence

LossTerms = Mapping[Literal["old_logprobs", "initial_logprobs", "chosen"], Sequence[Floats | Flags]]
"""What the loss reads of rollouts besides their signals, an array for each. old_logprobs: by the policy before the
first update of a batch, absent in that update: the ratio starts from the pass itself. chosen: True at the tokens that
clip_cov or kl_cov chose."""


@dataclass(slots=True, kw_only=True)
class GradientAccumulator:
    """Adds up one batch's gradient over micro-batches, with the sums for the metrics.

    The gradient is in `param.grad`; for half-precision weights it is in the `grad` of their float32 masters.
    """

    model: Any
    surrogate: SurrogateSettings
    size: BatchSize
    """Of the whole batch: what the loss is a mean over."""
    config: ForwardConfig = field(default_factory=ForwardConfig)
    loss: float = 0.0
    clipped_sum: float = 0.0
    ratio_sum: float = 0.0
    kl_sum: float = 0.0
    entropy_sum: float = 0.0

    def forward(
        self,
        rollouts: Sequence[Rollout],
        teacher_outcomes: OutcomesByTeacher = (),
        *,
        divergence: Divergence = "reverse_kl",
        imitated_index: int | None = None,
    ) -> StudentForward:
        """One micro-batch: log-probabilities with a gradient, and the features that credit is assigned from."""
        return score_student(
            self.model,
            rollouts,
            teacher_outcomes,
            divergence=divergence,
            config=self.config,
            imitated_index=imitated_index,
        )

    def backward(
        self,
        forward: StudentForward,
        rollouts: Sequence[Rollout],
        signals: Sequence[Signal],
        *,
        terms: LossTerms | None = None,
        imitated_index: int | None = None,
    ) -> None:
        """The gradient of this micro-batch's part of the loss."""
        if not forward.logprobs.numel():
            return  # the policy wrote nothing
        tokens = pack_tokens(forward.logprobs, rollouts, signals, terms or {})
        micro_batch_loss = surrogate_loss(tokens, self.size, self.surrogate)
        loss = micro_batch_loss.loss
        if imitated_index is not None:
            imitation = self._imitation_loss(forward.comparisons[imitated_index], rollouts, signals)
            loss = loss if imitation is None else loss + imitation
        loss.backward()
        self.loss += float(loss.detach())
        self.entropy_sum += float(forward.entropy.sum())
        self.clipped_sum += micro_batch_loss.clipped_sum
        self.ratio_sum += micro_batch_loss.ratio_sum
        self.kl_sum += micro_batch_loss.kl_sum

    def _imitation_loss(
        self, comparison: TeacherComparison, rollouts: Sequence[Rollout], signals: Sequence[Signal]
    ) -> Tensor | None:
        """sum_t coefficient * weight_t * D_t / size, where a signal declared it."""
        declared = [signal.imitate for signal in signals if signal.imitate is not None]
        divergence = comparison.divergence_with_grad(declared[0].divergence) if declared else None
        if divergence is None:
            return None
        weights = [
            np.zeros(len(rollout.response), np.float32)
            if signal.imitate is None
            else (signal.imitate.coefficient * signal.imitate.weight).astype(np.float32)
            for rollout, signal in zip(rollouts, signals, strict=True)
        ]
        weight = pack_policy_tokens(weights, rollouts).to(divergence.device)
        lengths = [rollout.num_policy_tokens for rollout in rollouts]
        total = sum_for_average(weight * divergence, lengths, self.surrogate)
        return total / self.size.denominator(self.surrogate.average)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedGroup:
    """Rollouts whose signals are known before the pass: what further updates learn from."""

    rollouts: Sequence[Rollout]
    signals: Sequence[Signal]
    terms: LossTerms = field(default_factory=dict)
    """In further updates with the log-probabilities of the first update's pass as the old ones."""
    imitated_outcomes: Sequence[TeacherOutcomes | None] | None = None
    """Scores of the teacher that the method imitates, one entry for each rollout."""

    def __post_init__(self) -> None:
        for name, arrays in self.terms.items():
            for rollout, array in zip(self.rollouts, arrays, strict=True):
                check_length(f"loss of {rollout.name}", name, array, len(rollout.response))


def accumulate_further_update(accumulator: GradientAccumulator, groups: Sequence[CreditedGroup], seed: int) -> None:
    """The gradient of one more update. `seed` decides which tokens clip_cov chooses."""
    if accumulator.surrogate.chooses_tokens:
        groups = choose_tokens(accumulator, groups, seed)
    for group in groups:
        accumulate_credited_group(accumulator, group)


def accumulate_credited_group(accumulator: GradientAccumulator, group: CreditedGroup) -> None:
    """The gradient of rollouts whose signals are known before the pass."""
    imitated_index = None if group.imitated_outcomes is None else 0
    with gradient_checkpointing(accumulator.model):
        for indices in split_micro_batches(accumulator.model, group.rollouts, accumulator.config):
            rollouts = [group.rollouts[index] for index in indices]
            imitated = group.imitated_outcomes
            outcomes = [] if imitated is None else [[imitated[index] for index in indices]]
            accumulator.backward(
                accumulator.forward(rollouts, outcomes, imitated_index=imitated_index),
                rollouts,
                [group.signals[index] for index in indices],
                terms=select_terms(group.terms, indices),
                imitated_index=imitated_index,
            )


def select_terms(terms: LossTerms, indices: Sequence[int]) -> LossTerms:
    """Those of some of the rollouts."""
    return {name: [arrays[index] for index in indices] for name, arrays in terms.items()}


def choose_tokens(accumulator: GradientAccumulator, groups: Sequence[CreditedGroup], seed: int) -> list[CreditedGroup]:
    """The groups with the tokens that clip_cov or kl_cov choose. It takes a forward pass over the batch."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    signals = [signal for group in groups for signal in group.signals]
    terms: LossTerms = {name: [array for group in groups for array in group.terms[name]] for name in groups[0].terms}
    logprobs = score_logprobs(accumulator.model, rollouts, accumulator.config)
    tokens = pack_tokens(pack_policy_tokens(logprobs, rollouts), rollouts, signals, terms)
    chosen = choose_by_covariance(tokens, accumulator.surrogate, np.random.default_rng(seed))
    flags: Iterator[Flags] = (array > 0 for array in unpack_policy_tokens(Tensor(chosen), rollouts))
    return [replace(group, terms={**group.terms, "chosen": [next(flags) for _ in group.rollouts]}) for group in groups]


def pack_tokens(
    logprobs: Tensor, rollouts: Sequence[Rollout], signals: Sequence[Signal], terms: LossTerms
) -> PackedTokens:
    """The tokens of a micro-batch as the surrogate reads them. Old log-probabilities are the pass's own where none are
    given."""
    advantage = pack_policy_tokens([signal.token_advantage for signal in signals], rollouts).to(logprobs.device)
    packed = {name: pack_policy_tokens(arrays, rollouts).to(logprobs.device) for name, arrays in terms.items()}
    return PackedTokens(
        logprobs=logprobs,
        old_logprobs=packed.get("old_logprobs", logprobs.detach()),
        advantage=advantage,
        lengths=[rollout.num_policy_tokens for rollout in rollouts],
        initial_logprobs=packed.get("initial_logprobs"),
        chosen=packed.get("chosen"),
    )


@contextmanager
def gradient_checkpointing(model: Any) -> Iterator[None]:
    """Let layers be computed again in the backward pass, where the policy is loaded so.

    Transformers does that in training mode alone. The layers are put into it, their dropout is not.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    layers = [module for module in layers if module.gradient_checkpointing]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
