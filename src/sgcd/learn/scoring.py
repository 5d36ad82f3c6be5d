"""Log-probabilities of finished rollouts under a model: the trainer's own, at the temperature they were sampled at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.learn.batch import Grid, cut, grid
from sgcd.records import Floats, Rollout


def written(model: Any, laid: Grid, temperature: float) -> tuple[Tensor, Tensor]:
    """log p(y_t) of every written token of a grid, row by row, and the entropy of its distribution (no gradient).

    Logits are divided by the sampler's temperature and upcast before the softmax.
    """
    device = next(model.parameters()).device
    ids, mask = laid.ids.to(device), laid.mask.to(device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1][mask]
    # Upcast only what is below float32: tests of the exact identities run in float64.
    logits = (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits) / temperature
    logps = torch.log_softmax(logits, dim=-1)
    chosen = logps.gather(-1, ids[:, 1:][mask].unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = -(logps.exp() * logps).sum(-1)
    return chosen, entropy


@torch.no_grad()
def logps(model: Any, rollouts: Sequence[Rollout], temperature: float, tokens: int) -> list[Floats]:
    """For each rollout, one number for each token of its response: log p(y_t) where it was written, 0 elsewhere."""
    scored = [np.zeros(len(rollout.response), np.float32) for rollout in rollouts]
    for part in cut(rollouts, tokens):
        chosen = written(model, grid([rollouts[index] for index in part]), temperature)[0].float().cpu().numpy()
        start = 0
        for index in part:
            stop = start + rollouts[index].written
            scored[index][rollouts[index].mask] = chosen[start:stop]
            start = stop
    return scored


def gap(rollouts: Sequence[Rollout], scored: Sequence[Floats]) -> tuple[float, float]:
    """Mean and largest |trainer - sampler| over the written tokens: how far sampling and training disagree."""
    differences = [np.abs(s - r.sampled_logp)[r.mask] for r, s in zip(rollouts, scored, strict=True)]
    flat = np.concatenate(differences) if differences else np.zeros(0, np.float32)
    return (float(flat.mean()), float(flat.max())) if flat.size else (0.0, 0.0)
