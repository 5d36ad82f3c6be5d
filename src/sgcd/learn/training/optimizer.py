"""One optimizer step with learning rate, clipped gradient and float32 master weights; only finite numbers are used."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from sgcd.learn.settings import OptimizerSettings
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.storage.metrics import OptimizerMetrics

HALF_DTYPES = (torch.bfloat16, torch.float16)
"""Types of weights that get a float32 master."""


class MasterAdamW(torch.optim.AdamW):
    """AdamW on float32 copies of half-precision weights, the masters.

    A bfloat16 weight loses a step of 1e-6, and a bfloat16 gradient loses a small summand. So the optimizer updates
    float32 masters, and adds the gradient of each micro-batch to a float32 sum. After a step, the masters are rounded
    into the model. A weight of 32 bits or more is its own master.
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
        """Round the masters into the weights of the model."""
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
    """Fused AdamW over the trained weights: it makes no temporary of the size of a weight."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return MasterAdamW(parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True)


def learning_rate(settings: OptimizerSettings, step: int) -> float:
    """The learning rate of `step`, counted from one: linear over the warm-up, then constant."""
    return settings.lr * min(1.0, step / max(settings.warmup, 1))


def optimizer_step(
    optimizer: torch.optim.Optimizer, gradient: GradientAccumulator, settings: OptimizerSettings, step: int
) -> OptimizerMetrics:
    """Update the policy once. If loss or gradient is not finite, policy and optimizer stay as they are."""
    lr, num_tokens = learning_rate(settings, step), gradient.size.num_tokens
    if not num_tokens:
        return OptimizerMetrics(lr=lr, skipped="no token was written", updates=0)
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
    return OptimizerMetrics(
        lr=lr,
        skipped=skipped,
        updates=0 if skipped else 1,
        loss=_finite_or_none(gradient.loss),
        grad_norm=_finite_or_none(grad_norm),
        clip_share=gradient.clipped_sum / num_tokens,
        ratio=_finite_or_none(gradient.ratio_sum / num_tokens),
        kl=_finite_or_none(gradient.kl_sum / num_tokens) if gradient.surrogate.kl > 0 else None,
        entropy=_finite_or_none(gradient.entropy_sum / num_tokens),
    )


def mean_over_updates(updates: Sequence[OptimizerMetrics]) -> OptimizerMetrics:
    """The updates of one step as one: the mean of each number, over the updates that have it."""
    if len(updates) == 1:
        return updates[0]
    moved = sum(update.updates or 0 for update in updates)
    means: dict[str, float | None] = {}
    for name in ("loss", "grad_norm", "clip_share", "ratio", "kl", "entropy"):
        values = [value for update in updates if (value := getattr(update, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return OptimizerMetrics(lr=updates[0].lr, skipped="" if moved else updates[0].skipped, updates=moved, **means)


def _finite_or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return value if isfinite(value) else None
