"""Log-probabilities of finished rollouts: the trainer's own, at the temperature they were sampled at."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.learn.batch import Grid, cut, grid, unflat
from sgcd.learn.head import backbone_of, head_of
from sgcd.learn.rows import ROOM
from sgcd.learn.stats import stats_at
from sgcd.records import Floats, Rollout

Rows = tuple[Tensor, Tensor]
"""Hidden states [written tokens, hidden] from which the next token is predicted, and the ids that were written."""


@torch.no_grad()
def logps(model: Any, rollouts: Sequence[Rollout], temperature: float, tokens: int, room: int = ROOM) -> list[Floats]:
    """For each rollout, one number for each token of its response: log p(y_t) where it was written, 0 elsewhere."""
    scored: dict[int, Floats] = {}
    for part, (hidden, observed) in forwards(model, rollouts, tokens):
        own = stats_at(hidden, head_of(model), observed, (), temperature, room).own
        scored |= zip(part, unflat(own, [rollouts[index] for index in part]), strict=True)
    return [scored[index] for index in range(len(rollouts))]


def read(model: Any, laid: Grid) -> Rows:
    """One forward pass. The head will be asked only for what was written."""
    device = next(model.parameters()).device
    ids, mask = laid.ids.to(device), laid.mask.to(device)
    hidden = backbone_of(model)(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[:, :-1][mask], ids[:, 1:][mask]


def forwards(model: Any, rollouts: Sequence[Rollout], tokens: int) -> Iterator[tuple[list[int], Rows]]:
    """One forward pass after the other, each with the rollouts that it read."""
    for part in cut(rollouts, tokens):
        yield part, read(model, grid([rollouts[index] for index in part]))


def gap(rollouts: Sequence[Rollout], scored: Sequence[Floats]) -> tuple[float, float]:
    """Mean and largest |trainer - sampler| over the written tokens: how far sampling and training disagree."""
    differences = [np.abs(s - r.sampled_logp)[r.mask] for r, s in zip(rollouts, scored, strict=True)]
    flat = np.concatenate(differences) if differences else np.zeros(0, np.float32)
    return (float(flat.mean()), float(flat.max())) if flat.size else (0.0, 0.0)
