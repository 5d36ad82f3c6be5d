"""One optimiser step: the rate, the clipped gradient, and nothing that is not finite reaches the weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from sgcd.learn.settings import OptimizerSettings
from sgcd.learn.training.gradient import GradientAccumulator

HALF_DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimiser step did; None where nothing was measured."""

    lr: float
    skipped: str = ""
    """Why the policy was left as it was; empty when it moved."""
    loss: float | None = None
    grad_norm: float | None = None
    """Before clipping."""
    clip_share: float | None = None
    ratio: float | None = None
    kl: float | None = None
    """To the initial policy, by k3; None when the recipe has no KL term."""
    entropy: float | None = None


class MasterAdamW(torch.optim.AdamW):
    """A step of 1e-6 is lost in a bfloat16 weight, and so is a small gradient that is added to a large one.

    So the optimiser moves float32 copies, and the gradient of each micro-batch is added to a float32 sum and let go.
    After a step, the model has the copies as far as its bits reach. Weights of 32 bits and more are their own masters.
    """

    def __init__(self, parameters: Iterable[Tensor], **options: Any) -> None:
        self.masters = {parameter: _float32_copy(parameter) for parameter in parameters}
        super().__init__([*self.masters.values()], **options)
        for weight, master in self.masters.items():
            if master is not weight:
                weight.register_post_accumulate_grad_hook(self._accumulate_gradient)
        self.register_step_post_hook(lambda *_: self.copy_to_model())

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model what the masters hold."""
        for weight, master in self.masters.items():
            if master is not weight:
                weight.copy_(master)

    def _accumulate_gradient(self, weight: Tensor) -> None:
        if weight.grad is None:
            return
        master = self.masters[weight]
        master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
        weight.grad = None


def _float32_copy(weight: Tensor) -> Tensor:
    return weight.detach().float().requires_grad_() if weight.dtype in HALF_DTYPES else weight


def build_optimizer(model: Any, settings: OptimizerSettings) -> MasterAdamW:
    """AdamW in one pass over each weight: nothing of the size of the largest one is made beside it."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return MasterAdamW(parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True)


def learning_rate(settings: OptimizerSettings, step: int) -> float:
    """The learning rate of `step` (counted from one): linear over the warm-up, then constant."""
    return settings.lr * min(1.0, step / max(settings.warmup, 1))


def optimizer_step(
    optimizer: torch.optim.Optimizer, gradient: GradientAccumulator, settings: OptimizerSettings, step: int
) -> StepResult:
    """Move the policy once. A loss or a gradient that is not finite leaves it, and the optimiser, as they were."""
    lr, num_tokens = learning_rate(settings, step), gradient.num_tokens
    if not num_tokens:
        return StepResult(lr, skipped="no token was written")
    for group in optimizer.param_groups:
        group["lr"] = lr
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm, foreach=False))
    skipped = ""
    if not isfinite(gradient.loss):
        skipped = "the loss was not finite"
    elif not isfinite(grad_norm):
        skipped = "the gradient was not finite"
    else:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(
        lr=lr,
        skipped=skipped,
        loss=_finite_or_none(gradient.loss),
        grad_norm=_finite_or_none(grad_norm),
        clip_share=gradient.clipped_sum / num_tokens,
        ratio=_finite_or_none(gradient.ratio_sum / num_tokens),
        kl=_finite_or_none(gradient.kl_sum / num_tokens) if gradient.surrogate.kl > 0 else None,
        entropy=_finite_or_none(gradient.entropy_sum / num_tokens),
    )


def _finite_or_none(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if isfinite(value) else None
