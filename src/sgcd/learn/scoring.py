"""Log-probabilities of finished rollouts under a model: the trainer's own, at the temperature they were sampled at."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.credit.divergence import log_softmax
from sgcd.learn.batch import Grid, cut, grid, unflat
from sgcd.records import Floats, Rollout

BLOCK = 2**19
"""Logits that are worked on at a time: about what stays in a processor's cache."""

Rows = tuple[Tensor, Tensor]
"""Logits [written tokens, vocabulary], and the ids that were written."""


def written(model: Any, laid: Grid, temperature: float) -> tuple[Tensor, Tensor]:
    """log p(y_t) of every written token of a grid, row by row, and the entropy of its distribution (no gradient)."""
    logits, observed = read(model, laid)
    logp = log_softmax(heated(logits, temperature))
    with torch.no_grad():
        entropy = -(logp.exp() * logp).sum(-1)
    return chosen(logp, observed), entropy


@torch.no_grad()
def logps(model: Any, rollouts: Sequence[Rollout], temperature: float, tokens: int) -> list[Floats]:
    """For each rollout, one number for each token of its response: log p(y_t) where it was written, 0 elsewhere."""
    scored: dict[int, Floats] = {}
    for part, rows in forwards(model, rollouts, tokens):
        found = [chosen(log_softmax(z), observed) for _, z, observed in blocks(rows, temperature)]
        scored |= zip(part, unflat(torch.cat(found), [rollouts[index] for index in part]), strict=True)
    return [scored[index] for index in range(len(rollouts))]


def read(model: Any, laid: Grid) -> Rows:
    """One forward pass. The head is asked only for columns in which something was written."""
    device = next(model.parameters()).device
    ids, mask = laid.ids.to(device), laid.mask.to(device)
    columns = mask.any(0).nonzero().squeeze(-1)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=columns).logits
    return logits[mask[:, columns]], ids[:, 1:][mask]


def heated(logits: Tensor, temperature: float) -> Tensor:
    """Divided by the sampler's temperature, and upcast where they are below float32: tests run in float64."""
    return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits) / temperature


def chosen(logp: Tensor, observed: Tensor) -> Tensor:
    return logp.gather(-1, observed.unsqueeze(-1)).squeeze(-1)


def forwards(model: Any, rollouts: Sequence[Rollout], tokens: int) -> Iterator[tuple[list[int], Rows]]:
    """One forward pass after the other, each with the rollouts that it read."""
    for part in cut(rollouts, tokens):
        yield part, read(model, grid([rollouts[index] for index in part]))


def blocks(rows: Rows, temperature: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The rows in order, some at a time (at least one block, if empty), their logits divided by the temperature."""
    logits, observed = rows
    size = max(1, BLOCK // logits.shape[-1])
    for start in range(0, max(1, len(logits)), size):
        here = slice(start, start + size)
        yield here, heated(logits[here], temperature), observed[here]


def gap(rollouts: Sequence[Rollout], scored: Sequence[Floats]) -> tuple[float, float]:
    """Mean and largest |trainer - sampler| over the written tokens: how far sampling and training disagree."""
    differences = [np.abs(s - r.sampled_logp)[r.mask] for r, s in zip(rollouts, scored, strict=True)]
    flat = np.concatenate(differences) if differences else np.zeros(0, np.float32)
    return (float(flat.mean()), float(flat.max())) if flat.size else (0.0, 0.0)
