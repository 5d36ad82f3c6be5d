"""The gradient of one batch's loss, added up rollouts by rollouts, and the numbers that go with it.

What a rollout deserves is asked for when its log-probabilities are there: one forward pass serves the ratio, the method
and the gradient. That holds as long as a batch has one update; the ratio starts from the pass itself and is one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from sgcd.credit.settings import Divergence
from sgcd.learn.scoring.batch import LossInputs, pack_policy_tokens, split_micro_batches
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES
from sgcd.learn.scoring.student import StudentScores, TopKByTeacher, score_student
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import surrogate_loss
from sgcd.records import Rollout

CreditFn = Callable[[Sequence[int], StudentScores], Sequence[LossInputs]]
"""What some of the rollouts, by their places, are to be learnt as, given what the student's pass says of them."""


@dataclass(slots=True)
class GradientAccumulator:
    """Lies in the model; here are the sums over the tokens that it was made of."""

    model: Any
    surrogate: SurrogateSettings
    temperature: float
    micro_batch_tokens: int
    """In one micro-batch, padded; nothing depends on it."""
    num_tokens: int
    """Written tokens of the whole batch: what the loss is a mean over."""
    logits_bytes: int = LOGITS_BYTES
    loss: float = 0.0
    clipped_sum: float = 0.0
    ratio_sum: float = 0.0
    kl_sum: float = 0.0
    entropy_sum: float = 0.0

    def accumulate(
        self,
        rollouts: Sequence[Rollout],
        credit_fn: CreditFn,
        teacher_topk: TopKByTeacher = (),
        divergence: Divergence = "reverse_kl",
    ) -> None:
        """These rollouts' part of the loss, one micro-batch after the other."""
        with gradient_checkpointing(self.model):
            for indices in split_micro_batches(rollouts, self.micro_batch_tokens):
                part_topk = [[topk[index] for index in indices] for topk in teacher_topk]
                self._accumulate_micro_batch(
                    [rollouts[index] for index in indices], indices, credit_fn, part_topk, divergence
                )

    def _accumulate_micro_batch(
        self,
        rollouts: Sequence[Rollout],
        indices: Sequence[int],
        credit_fn: CreditFn,
        teacher_topk: TopKByTeacher,
        divergence: Divergence,
    ) -> None:
        logprobs, entropy, scores = score_student(
            self.model, rollouts, teacher_topk, self.temperature, divergence, self.logits_bytes
        )
        loss_inputs = credit_fn(indices, scores)
        if not logprobs.numel():
            return  # nothing was written
        old_logprobs = pack_policy_tokens([loss_input.old_logprobs for loss_input in loss_inputs], rollouts).to(
            logprobs.device
        )
        advantages = pack_policy_tokens([loss_input.advantage for loss_input in loss_inputs], rollouts).to(
            logprobs.device
        )
        initial_arrays = [
            loss_input.initial_logprobs for loss_input in loss_inputs if loss_input.initial_logprobs is not None
        ]
        initial_logprobs = pack_policy_tokens(initial_arrays, rollouts).to(logprobs.device) if initial_arrays else None
        micro_batch_loss = surrogate_loss(
            logprobs, old_logprobs, advantages, initial_logprobs, self.num_tokens, self.surrogate
        )
        micro_batch_loss.loss.backward()
        self.loss += float(micro_batch_loss.loss.detach())
        self.entropy_sum += float(entropy.sum())
        self.clipped_sum += micro_batch_loss.clipped_sum
        self.ratio_sum += micro_batch_loss.ratio_sum
        self.kl_sum += micro_batch_loss.kl_sum


def fixed_advantages(loss_inputs: Sequence[LossInputs]) -> tuple[list[Rollout], CreditFn]:
    """Rollouts of which it is known beforehand what they are to be learnt as."""
    return [loss_input.rollout for loss_input in loss_inputs], lambda indices, _: [
        loss_inputs[index] for index in indices
    ]


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
