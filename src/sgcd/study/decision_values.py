"""What every decision of a rollout was truly worth: continuations from just after it against those from just before.

All of it was fixed before anything was measured, and a figure that disappoints changes none of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.records import Flags, Floats, Rollout, Task
from sgcd.study.continuations import BranchPoint, play_continuations

MAX_TOP_PROB = 0.98
"""A token is measured where the student's likeliest one has less than this: elsewhere the policy hardly had a choice,
and leaving its choice to chance again would change what follows in one case of fifty."""
NUM_CONTINUATIONS = 64
"""Continuations on each side: their difference has a standard error of .09 at most, so that an advantage of .26 is
always found out, a smaller one where the outcome is less open."""
DECISIVE_STANDARD_ERRORS = 3.0
"""Standard errors beyond which an advantage is decisive: of tokens that decide nothing, one in 370 is so by chance."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The true advantage of each token of one rollout.

    >>> import numpy as np
    >>> advantage, error = np.array([np.nan, 0.5, 0.1], np.float32), np.array([np.nan, 0.06, 0.08], np.float32)
    >>> Truth(advantage, error, counted=np.array([True, True, True])).decisive
    array([False,  True, False])
    """

    advantage: Floats
    """NaN where nothing was measured."""
    standard_error: Floats
    """Its standard error."""
    counted_mask: Flags
    """True on what the policy wrote, masked literals left out: only there is a token decisive or not."""

    @property
    def measured_mask(self) -> Flags:
        return np.isfinite(self.advantage)

    @property
    def decisive_mask(self) -> Flags:
        return self.measured_mask & (
            np.abs(np.nan_to_num(self.advantage)) > DECISIVE_STANDARD_ERRORS * np.nan_to_num(self.standard_error)
        )


def undecided_positions(top_probs: Floats, counted_mask: Flags) -> NDArray[np.int64]:
    """Positions to measure: `top` is the student's largest probability at each token of the response."""
    return np.flatnonzero(counted_mask & (top_probs < MAX_TOP_PROB))


def estimate_advantage(after: NDArray[np.int64], before: NDArray[np.int64], num_plays: int) -> tuple[Floats, Floats]:
    """Q(s, y) - V(s) and its standard error, from the successes among `times` plays on each side.

    A success and a failure are added to each side (Agresti and Caffo 2000), so that the error of 0 or `times` successes
    is not zero: p = (c + 1) / (n + 2), error = sqrt(sum of p (1 - p) / (n + 2)).
    """
    q, v = (after + 1) / (num_plays + 2), (before + 1) / (num_plays + 2)
    standard_error = np.sqrt((q * (1 - q) + v * (1 - v)) / (num_plays + 2))
    return (q - v).astype(np.float32), standard_error.astype(np.float32)


async def measure_truths(
    tasks: Sequence[Task],
    rollouts: Sequence[Rollout],
    top_probs: Sequence[Floats],
    counted_masks: Sequence[Flags],
    chat: Chat,
    sampler: Sampler,
    seed: int,
    num_plays: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Truth]:
    """The truth about each rollout; the value after a token is the value before the next, and is found only once."""
    positions_by_rollout = [
        undecided_positions(rollout_top_probs, mask)
        for rollout_top_probs, mask in zip(top_probs, counted_masks, strict=True)
    ]
    states = [
        BranchPoint(task, rollout, int(position) + side)
        for task, rollout, rollout_positions in zip(tasks, rollouts, positions_by_rollout, strict=True)
        for position in rollout_positions
        for side in (0, 1)
    ]
    successes = np.array(
        await play_continuations(states, num_plays, chat=chat, sampler=sampler, seed=seed, on_progress=on_progress),
        np.int64,
    ).reshape(-1, 2)
    advantage, standard_error = estimate_advantage(successes[:, 1], successes[:, 0], num_plays)
    results: list[Truth] = []
    start = 0
    for rollout, rollout_positions, mask in zip(rollouts, positions_by_rollout, counted_masks, strict=True):
        values = np.full((2, len(rollout.response)), np.nan, np.float32)
        stop = start + len(rollout_positions)
        values[:, rollout_positions] = advantage[start:stop], standard_error[start:stop]
        results.append(Truth(values[0], values[1], mask))
        start = stop
    return results
