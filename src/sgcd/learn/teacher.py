"""The policy as its own teacher: it reads a reference first, and what it then makes of the very same tokens is kept.

This one forward pass is all that a reference costs: the teacher comes first and leaves its likeliest ids and their
log-probabilities, and the student is asked at those ids while its logits are there anyway (student.py). Both go through
the same products and the same statistics, so that equal contexts differ by exactly nothing. No gradient passes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sgcd.contrast.insert import aligned
from sgcd.learn.head import head_of
from sgcd.learn.rows import ROOM
from sgcd.learn.scoring import forwards
from sgcd.learn.stats import topk_stats
from sgcd.records import Ids, Rollout


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher says where a rollout was written, token by token: 8 bytes for each of K ids."""

    observed: Tensor
    """The ids that were written; the student's have to be the same."""
    ids: Tensor
    """[written, K]: the teacher's likeliest, ties to the lower id."""
    logp: Tensor
    """[written, K + 2]: log-probabilities of these, of the observed id, and of all others together."""


@torch.no_grad()
def teach(
    model: Any,
    rollouts: Sequence[Rollout],
    rows: Sequence[Ids],
    temperature: float,
    tokens: int,
    k: int,
    room: int = ROOM,
) -> list[Lesson]:
    """One forward pass over `rows`: the rollouts as the teacher reads them, with a reference in each prompt."""
    shown = [after(rollout, row) for rollout, row in zip(rollouts, rows, strict=True)]
    found: dict[int, Lesson] = {}
    for part, (hidden, observed) in forwards(model, shown, tokens):
        top = topk_stats(hidden, head_of(model), observed, k, temperature, room)
        said = outcomes_at(top.ids, observed, top.logp, top.own, top.rest)
        lengths = [shown[index].written for index in part]
        parts = zip(*(whole.cpu().split(lengths) for whole in (observed, top.ids.int(), said)), strict=True)
        found |= {index: Lesson(*lesson) for index, lesson in zip(part, parts, strict=True)}
    return [found[index] for index in range(len(rollouts))]


def outcomes_at(ids: Tensor, observed: Tensor, logp: Tensor, own: Tensor, rest: Tensor) -> Tensor:
    """The K + 2 outcomes; the observed id's slot is empty where `ids` holds it already."""
    slot = own.masked_fill((ids == observed[:, None]).any(-1), float("-inf"))
    return torch.cat([logp, slot[:, None], rest[:, None]], dim=1)


def after(rollout: Rollout, row: Ids) -> Rollout:
    """The same response after the teacher's prompt; refused unless the row differs by an insertion alone."""
    aligned(rollout, row, max(0, len(row) - len(rollout.prompt) - len(rollout.response)))
    return replace(rollout, prompt=row[: len(row) - len(rollout.response)])
