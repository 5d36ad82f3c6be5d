"""The gradient of one batch's loss, added up micro-batch by micro-batch, and the sums that the metrics need.

In the first update of a batch one forward pass serves the ratio, the method and the gradient: the ratio starts from the
pass itself and is one. Further updates learn from advantages that are known, and from that pass's log-probabilities.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from sgcd.learn.scoring.forward import ForwardConfig, LossInputs, pack_policy_tokens, split_micro_batches
from sgcd.learn.scoring.student import StudentForward, TopKByTeacher, score_student
from sgcd.learn.scoring.teacher import TeacherTopK
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import BatchSize, PackedTokens, sum_for_average, surrogate_loss
from sgcd.records import Flags, Floats, Rollout
from sgcd.settings import Divergence


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
        teacher_topk: TopKByTeacher = (),
        *,
        divergence: Divergence = "reverse_kl",
        imitated_index: int | None = None,
    ) -> StudentForward:
        """One micro-batch: log-probabilities with a gradient, and the features that credit is assigned from."""
        return score_student(
            self.model, rollouts, teacher_topk, divergence=divergence, config=self.config, imitated_index=imitated_index
        )

    def backward(
        self, forward: StudentForward, loss_inputs: Sequence[LossInputs], imitated_index: int | None = None
    ) -> None:
        """The gradient of this micro-batch's part of the loss."""
        logprobs = forward.logprobs
        if not logprobs.numel():
            return  # the policy wrote nothing
        micro_batch_loss = surrogate_loss(pack_tokens(logprobs, loss_inputs), self.size, self.surrogate)
        loss = micro_batch_loss.loss
        if imitated_index is not None:
            imitation = self._imitation_loss(forward, loss_inputs, imitated_index)
            loss = loss if imitation is None else loss + imitation
        loss.backward()
        self.loss += float(loss.detach())
        self.entropy_sum += float(forward.entropy.sum())
        self.clipped_sum += micro_batch_loss.clipped_sum
        self.ratio_sum += micro_batch_loss.ratio_sum
        self.kl_sum += micro_batch_loss.kl_sum

    def _imitation_loss(
        self, forward: StudentForward, loss_inputs: Sequence[LossInputs], imitated_index: int
    ) -> Tensor | None:
        """sum_t coefficient * weight_t * D_t / size, where a signal declared it."""
        declared = [inputs.imitate for inputs in loss_inputs if inputs.imitate is not None]
        divergence = (
            forward.comparisons[imitated_index].divergence_with_grad(declared[0].divergence) if declared else None
        )
        if divergence is None:
            return None
        weights = [
            np.zeros(len(inputs.rollout.response), np.float32)
            if inputs.imitate is None
            else (inputs.imitate.coefficient * inputs.imitate.weight).astype(np.float32)
            for inputs in loss_inputs
        ]
        rollouts = [inputs.rollout for inputs in loss_inputs]
        weight = pack_policy_tokens(weights, rollouts).to(divergence.device)
        lengths = [rollout.num_policy_tokens for rollout in rollouts]
        total = sum_for_average(weight * divergence, lengths, self.surrogate)
        return total / self.size.denominator(self.surrogate.average)


def accumulate_known_advantages(
    accumulator: GradientAccumulator,
    loss_inputs: Sequence[LossInputs],
    imitated_topk: Sequence[TeacherTopK | None] | None = None,
) -> None:
    """The gradient of rollouts whose token advantages are known before the pass.

    `imitated_topk` has the scores of the teacher that signals imitate, one entry for each rollout.
    """
    rollouts = [inputs.rollout for inputs in loss_inputs]
    with gradient_checkpointing(accumulator.model):
        for indices in split_micro_batches(accumulator.model, rollouts, accumulator.config):
            topk = [] if imitated_topk is None else [[imitated_topk[index] for index in indices]]
            imitated_index = None if imitated_topk is None else 0
            forward = accumulator.forward([rollouts[index] for index in indices], topk, imitated_index=imitated_index)
            accumulator.backward(forward, [loss_inputs[index] for index in indices], imitated_index)


def pack_tokens(logprobs: Tensor, loss_inputs: Sequence[LossInputs]) -> PackedTokens:
    """The tokens of a micro-batch as the surrogate reads them. Old log-probabilities are the pass's own where none are
    given."""
    old_logprobs = _pack_or_none(loss_inputs, [inputs.old_logprobs for inputs in loss_inputs], logprobs)
    advantage = _pack_or_none(loss_inputs, [inputs.advantage for inputs in loss_inputs], logprobs)
    assert advantage is not None
    return PackedTokens(
        logprobs=logprobs,
        old_logprobs=logprobs.detach() if old_logprobs is None else old_logprobs,
        advantage=advantage,
        lengths=[inputs.rollout.num_policy_tokens for inputs in loss_inputs],
        initial_logprobs=_pack_or_none(loss_inputs, [inputs.initial_logprobs for inputs in loss_inputs], logprobs),
        chosen=_pack_or_none(loss_inputs, [inputs.chosen for inputs in loss_inputs], logprobs),
    )


def _pack_or_none(
    loss_inputs: Sequence[LossInputs], arrays: Sequence[Floats | Flags | None], like: Tensor
) -> Tensor | None:
    """One row over the micro-batch's tokens, or None where no rollout has the array."""
    present = [array for array in arrays if array is not None]
    if not present:
        return None
    return pack_policy_tokens(present, [inputs.rollout for inputs in loss_inputs]).to(like.device)


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
