"""One optimiser step on one batch: micro-batches add up, and nothing that is not finite reaches the weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from sgcd.learn.batch import Example, cut, flat, grid
from sgcd.learn.masters import MasterAdamW
from sgcd.learn.rows import ROOM
from sgcd.learn.scoring import written
from sgcd.learn.settings import OptimizerSettings, SurrogateSettings
from sgcd.learn.surrogate import surrogate


@dataclass(frozen=True, slots=True)
class Update:
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


def optimizer_of(model: Any, settings: OptimizerSettings) -> MasterAdamW:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return MasterAdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, foreach=False
    )


def rate(settings: OptimizerSettings, step: int) -> float:
    """The learning rate of `step` (counted from one): linear over the warm-up, then constant."""
    return settings.lr * min(1.0, step / max(settings.warmup, 1))


def update(
    model: Any,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    trust: SurrogateSettings,
    settings: OptimizerSettings,
    temperature: float,
    step: int,
    room: int = ROOM,
) -> Update:
    """Move the policy once. A loss or a gradient that is not finite leaves it, and the optimiser, as they were."""
    lr = rate(settings, step)
    if not any(example.rollout.written for example in examples):
        return Update(lr, skipped="no token was written")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    with recomputing(model):
        sums = accumulate(model, examples, trust, temperature, settings.tokens, room)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm, foreach=False))
    skipped = ""
    if not isfinite(sums.loss):
        skipped = "the loss was not finite"
    elif not isfinite(norm):
        skipped = "the gradient was not finite"
    else:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    count = sum(example.rollout.written for example in examples)
    return Update(
        lr=lr,
        skipped=skipped,
        loss=_finite(sums.loss),
        grad_norm=_finite(norm),
        clip_share=sums.clipped / count,
        ratio=_finite(sums.ratio / count),
        kl=_finite(sums.kl / count) if trust.kl > 0 else None,
        entropy=_finite(sums.entropy / count),
    )


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """Let layers be computed again in the backward pass, where the policy is loaded so.

    Transformers does that in training mode alone. The layers are put into it, their dropout is not.
    """
    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    layers = [each for each in layers if each.gradient_checkpointing]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@dataclass(slots=True)
class Sums:
    """What the micro-batches of one batch add up to."""

    loss: float = 0.0
    clipped: float = 0.0
    ratio: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0


def accumulate(
    model: Any,
    examples: Sequence[Example],
    settings: SurrogateSettings,
    temperature: float,
    tokens: int,
    room: int = ROOM,
) -> Sums:
    """Add the gradient of the whole batch's loss to the model, one micro-batch after the other."""
    rollouts = [example.rollout for example in examples]
    count = sum(rollout.written for rollout in rollouts)
    sums = Sums()
    for part in cut(rollouts, tokens):
        chosen = [examples[index] for index in part]
        some = [example.rollout for example in chosen]
        logp, entropy = written(model, grid(some), temperature, room)
        old = flat([example.old_logp for example in chosen], some).to(logp.device)
        advantage = flat([example.advantage for example in chosen], some).to(logp.device)
        initial = [example.initial_logp for example in chosen if example.initial_logp is not None]
        initial_logp = flat(initial, some).to(logp.device) if initial else None
        micro = surrogate(logp, old, advantage, initial_logp, count, settings)
        micro.loss.backward()
        sums.loss += float(micro.loss.detach())
        sums.entropy += float(entropy.sum())
        sums.clipped += micro.clipped
        sums.ratio += micro.ratio
        sums.kl += micro.kl
    return sums


def _finite(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if isfinite(value) else None
