"""What every decision of a rollout was truly worth: continuations from just after it against those from just before.

All of it was fixed before anything was measured, and a figure that disappoints changes none of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.lab.branch import State, play_on
from sgcd.records import Flags, Floats, Rollout, Task

TOP = 0.98
"""A token is measured where the student's likeliest one has less than this: elsewhere the policy hardly had a choice,
and leaving its choice to chance again would change what follows in one case of fifty."""
TIMES = 64
"""Continuations on each side: their difference has a standard error of .09 at most, so that an advantage of .26 is
always found out, a smaller one where the outcome is less open."""
ERRORS = 3.0
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
    error: Floats
    """Its standard error."""
    counted: Flags
    """True on what the policy wrote, masked literals left out: only there is a token decisive or not."""

    @property
    def measured(self) -> Flags:
        return np.isfinite(self.advantage)

    @property
    def decisive(self) -> Flags:
        return self.measured & (np.abs(np.nan_to_num(self.advantage)) > ERRORS * np.nan_to_num(self.error))


def undecided(top: Floats, counted: Flags) -> NDArray[np.int64]:
    """Positions to measure: `top` is the student's largest probability at each token of the response."""
    return np.flatnonzero(counted & (top < TOP))


def difference(after: NDArray[np.int64], before: NDArray[np.int64], times: int) -> tuple[Floats, Floats]:
    """Q(s, y) - V(s) and its standard error, from the successes among `times` plays on each side.

    A success and a failure are added to each side (Agresti and Caffo 2000), so that the error of 0 or `times` successes
    is not zero: p = (c + 1) / (n + 2), error = sqrt(sum of p (1 - p) / (n + 2)).
    """
    q, v = (after + 1) / (times + 2), (before + 1) / (times + 2)
    error = np.sqrt((q * (1 - q) + v * (1 - v)) / (times + 2))
    return (q - v).astype(np.float32), error.astype(np.float32)


async def truths(
    tasks: Sequence[Task],
    rollouts: Sequence[Rollout],
    tops: Sequence[Floats],
    counted: Sequence[Flags],
    chat: Chat,
    sampler: Sampler,
    seed: int,
    times: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[Truth]:
    """The truth about each rollout; the value after a token is the value before the next, and is found only once."""
    places = [undecided(top, flags) for top, flags in zip(tops, counted, strict=True)]
    states = [
        State(task, rollout, int(place) + side)
        for task, rollout, some in zip(tasks, rollouts, places, strict=True)
        for place in some
        for side in (0, 1)
    ]
    won = np.array(await play_on(states, times, chat, sampler, seed, say), np.int64).reshape(-1, 2)
    advantage, error = difference(won[:, 1], won[:, 0], times)
    found: list[Truth] = []
    start = 0
    for rollout, some, flags in zip(rollouts, places, counted, strict=True):
        blank = np.full((2, len(rollout.response)), np.nan, np.float32)
        stop = start + len(some)
        blank[:, some] = advantage[start:stop], error[start:stop]
        found.append(Truth(blank[0], blank[1], flags))
        start = stop
    return found
