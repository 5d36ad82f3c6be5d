"""What the student and its teachers say of each token of a response, and how sure the student was where it chose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgcd.chat import Chat
from sgcd.contrast.insert import block, teacher_row
from sgcd.credit.settings import Sgcd
from sgcd.learn.batch import unflat
from sgcd.learn.head import head_of
from sgcd.learn.scoring import forwards
from sgcd.learn.stats import topk_stats
from sgcd.learn.student import score
from sgcd.learn.teacher import teach
from sgcd.records import Features, Floats, Rollout

TOKENS = 16384
"""Padded tokens in one forward pass."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One rollout under all contexts."""

    top: Floats
    """The student's largest probability; zero where the policy did not write."""
    logp: Floats
    """The student's log-probability of what was written."""
    features: tuple[Features, ...]
    """One for each of the texts that the teacher was shown."""


def show(
    model: Any, chat: Chat, rollouts: Sequence[Rollout], texts: Sequence[Sequence[str]], told: Sgcd
) -> list[Shown]:
    """Score each rollout under each list of `texts` (one text for each rollout); no gradient."""
    lessons = []
    for arm in texts:
        rows = [teacher_row(rollout, block(chat, text)) for rollout, text in zip(rollouts, arm, strict=True)]
        lessons.append(teach(model, rollouts, rows, 1.0, TOKENS, told.k))
    marks = score(model, rollouts, lessons, 1.0, TOKENS, told.divergence)
    features = [tuple(one for one in some if one) for some in zip(*marks.features, strict=True)]
    return [Shown(*one) for one in zip(tops(model, rollouts), marks.logp, features, strict=True)]


def tops(model: Any, rollouts: Sequence[Rollout]) -> list[Floats]:
    """The largest probability of the student's distribution at each token that it wrote."""
    import torch

    found: dict[int, Floats] = {}
    with torch.no_grad():
        for part, (hidden, observed) in forwards(model, rollouts, TOKENS):
            largest = topk_stats(hidden, head_of(model), observed, 1).logp[:, 0].exp()
            found |= zip(part, unflat(largest, [rollouts[index] for index in part]), strict=True)
    return [found[index] for index in range(len(rollouts))]
