"""Measures the true advantage of each decision: success of continuations from just after it, less from just before.

All constants were fixed before the first measurement.
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
"""A token is measured where the student's largest probability is below this. Elsewhere the policy hardly has a choice:
sampling again would give another token in one case of fifty."""
NUM_CONTINUATIONS = 64
"""Continuations on each side. Their difference has a standard error of at most .09, so that an advantage of .26 is
always detected, and a smaller one where the outcome is less open."""
DECISIVE_STANDARD_ERRORS = 3.0
"""Standard errors beyond which an advantage is decisive. By chance this holds for one in 370 tokens without effect."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The true advantage of each token of one rollout.

    >>> import numpy as np
    >>> advantage, error = np.array([np.nan, 0.5, 0.1], np.float32), np.array([np.nan, 0.06, 0.08], np.float32)
    >>> Truth(advantage, error, counted_mask=np.array([True, True, True])).decisive_mask
    array([False,  True, False])
    """

    advantage: Floats
    """NaN where it was not measured."""
    standard_error: Floats
    """NaN where it was not measured."""
    counted_mask: Flags
    """True on policy tokens that are no masked literals. Only these tokens are decisive or not."""

    @property
    def measured_mask(self) -> Flags:
        return np.isfinite(self.advantage)

    @property
    def decisive_mask(self) -> Flags:
        return self.measured_mask & (
            np.abs(np.nan_to_num(self.advantage)) > DECISIVE_STANDARD_ERRORS * np.nan_to_num(self.standard_error)
        )


@dataclass(frozen=True, slots=True)
class MeasuredRollout:
    """One rollout of a task, and the tokens of it to measure."""

    task: Task
    rollout: Rollout
    top_probs: Floats
    """The student's largest probability at each token."""
    counted_mask: Flags
    """True where a token may count as decisive; see `Truth`."""


def undecided_positions(top_probs: Floats, counted_mask: Flags) -> NDArray[np.int64]:
    """Positions to measure: the policy had a choice there, and the token counts."""
    return np.flatnonzero(counted_mask & (top_probs < MAX_TOP_PROB))


def estimate_advantage(after: NDArray[np.int64], before: NDArray[np.int64], num_plays: int) -> tuple[Floats, Floats]:
    """Q(s, y) - V(s) and its standard error, from the successes among `num_plays` plays on each side.

    A success and a failure are added to each side (Agresti and Caffo 2000), so that the error of 0 or `num_plays`
    successes is not zero: p = (c + 1) / (n + 2), error = sqrt(sum of p (1 - p) / (n + 2)).
    """
    q, v = (after + 1) / (num_plays + 2), (before + 1) / (num_plays + 2)
    standard_error = np.sqrt((q * (1 - q) + v * (1 - v)) / (num_plays + 2))
    return (q - v).astype(np.float32), standard_error.astype(np.float32)


async def measure_truths(
    measurements: Sequence[MeasuredRollout],
    chat: Chat,
    sampler: Sampler,
    *,
    seed: int,
    num_plays: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Truth]:
    """The truth of each rollout. The value after a token is the value before the next one, and is measured once."""
    positions_by_rollout = [undecided_positions(item.top_probs, item.counted_mask) for item in measurements]
    states = [
        BranchPoint(item.task, item.rollout, int(position) + side)
        for item, positions in zip(measurements, positions_by_rollout, strict=True)
        for position in positions
        for side in (0, 1)
    ]
    successes = np.array(
        await play_continuations(states, num_plays, chat=chat, sampler=sampler, seed=seed, on_progress=on_progress),
        np.int64,
    ).reshape(-1, 2)
    advantage, standard_error = estimate_advantage(successes[:, 1], successes[:, 0], num_plays)
    results: list[Truth] = []
    start = 0
    for item, positions in zip(measurements, positions_by_rollout, strict=True):
        values = np.full((2, len(item.rollout.response)), np.nan, np.float32)
        stop = start + len(positions)
        values[:, positions] = advantage[start:stop], standard_error[start:stop]
        results.append(Truth(values[0], values[1], item.counted_mask))
        start = stop
    return results
