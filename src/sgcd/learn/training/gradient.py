"""The gradient of one batch's loss, added up micro-batch by micro-batch, and the sums that the metrics need.

One forward pass serves the ratio, the method and the gradient. That holds as long as a batch has one update: the ratio
starts from the pass itself and is one.
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
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import surrogate_loss
from sgcd.records import Floats, Rollout
from sgcd.settings import Divergence


@dataclass(slots=True, kw_only=True)
class GradientAccumulator:
    """Adds up one batch's gradient over micro-batches, with the sums for the metrics.

    The gradient is in `param.grad`; for half-precision weights it is in the `grad` of their float32 masters.
    """

    model: Any
    surrogate: SurrogateSettings
    num_tokens: int
    """Tokens that the policy wrote in the whole batch: what the loss is a mean over."""
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
        old_logprobs = _pack_or_none(loss_inputs, [inputs.old_logprobs for inputs in loss_inputs], logprobs)
        initial_logprobs = _pack_or_none(loss_inputs, [inputs.initial_logprobs for inputs in loss_inputs], logprobs)
        advantage = _pack_or_none(loss_inputs, [inputs.advantage for inputs in loss_inputs], logprobs)
        assert advantage is not None
        micro_batch_loss = surrogate_loss(
            logprobs,
            logprobs.detach() if old_logprobs is None else old_logprobs,
            advantage,
            initial_logprobs,
            num_tokens=self.num_tokens,
            settings=self.surrogate,
        )
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
        """sum_t coefficient * weight_t * D_t / num_tokens, where a signal declared it."""
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
        weight = pack_policy_tokens(weights, [inputs.rollout for inputs in loss_inputs]).to(divergence.device)
        return (weight * divergence).sum() / max(self.num_tokens, 1)


def accumulate_known_advantages(accumulator: GradientAccumulator, loss_inputs: Sequence[LossInputs]) -> None:
    """The gradient of rollouts whose token advantages are known before the pass."""
    rollouts = [inputs.rollout for inputs in loss_inputs]
    with gradient_checkpointing(accumulator.model):
        for indices in split_micro_batches(rollouts, accumulator.config.micro_batch_tokens):
            forward = accumulator.forward([rollouts[index] for index in indices])
            accumulator.backward(forward, [loss_inputs[index] for index in indices])


def _pack_or_none(loss_inputs: Sequence[LossInputs], arrays: Sequence[Floats | None], like: Tensor) -> Tensor | None:
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
