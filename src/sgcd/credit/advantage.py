"""Advantages: one number for each rollout of a group, from the rewards of the group."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6
Baseline = Literal["group_mean", "leave_one_out"]


def advantages(
    rewards: Sequence[float] | NDArray[np.float64], baseline: Baseline = "group_mean", scale_by_std: bool = True
) -> NDArray[np.float64]:
    """A_k = (r_k - b_k) / (sample std of the group + 1e-6), before any weight (2402.03300).

    b_k is the mean of the group, or the mean of the other rollouts (2402.14740). Without `scale_by_std` there is no
    division. A group of one, or of equal rewards, has advantages of exactly 0.

    >>> advantages([1.0, 0.0, 0.0, 1.0], scale_by_std=False).tolist()
    [0.5, -0.5, -0.5, 0.5]
    """
    r = np.asarray(rewards, dtype=np.float64)
    if r.size < 2 or r.min() == r.max():
        return np.zeros(r.size)
    centred = r - r.mean()
    if baseline == "leave_one_out":
        centred = centred * (r.size / (r.size - 1))
    return centred / (r.std(ddof=1) + EPSILON) if scale_by_std else centred


def overlong_penalties(lengths: Sequence[int], max_tokens: int, *, share: float, penalty: float) -> NDArray[np.float64]:
    """What each response loses of its reward (DAPO, 2503.14476): nothing up to (1 - share) max_tokens, then a part of
    `penalty` that rises linearly and is the whole of it at max_tokens.

    >>> overlong_penalties([80, 90, 100], 100, share=0.2, penalty=1.0).tolist()
    [0.0, 0.5, 1.0]
    """
    buffer = share * max_tokens
    over = (np.asarray(lengths, dtype=np.float64) - (max_tokens - buffer)) / buffer
    return penalty * np.clip(over, 0.0, 1.0)


def deal_verdicts(num_rollouts: int, seed: int) -> list[int]:
    """Whose verdict each rollout of a group has when they are dealt anew: the control of the recipe's `control:
    permuted`.

    Every rollout keeps its tokens and loses its verdict. A policy gradient learns nothing from such a group on average;
    a rule that selects tokens by the sign of the advantage and the teacher's together still may.
    """
    return np.random.default_rng(seed).permutation(num_rollouts).tolist()
