"""What a token looks like: names of colours for its weight, its divergence, its advantage and its kind."""

from typing import Any

import numpy as np

from sgcd.records import Floats, Kind, Rollout, Scored

LEVELS = 9
NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
"""From these divergences on a token has colour 1, 2, ... 9."""


def looks(rollout: Rollout, scored: Scored | None, scale: float) -> list[str]:
    """The colours of every token, as names of classes: w weight above one, v below, d divergence, p and n advantage,
    k kind, m masked literal. A token without colour has no name for it."""
    size = len(rollout.response)
    names: list[list[str]] = [[f"k{kind}"] for kind in rollout.kinds]

    def add(level: Any, name: str, other: str = "") -> None:
        for index in np.flatnonzero(level):
            names[index].append(f"{name if level[index] > 0 else other}{abs(int(level[index]))}")

    if scored is not None:
        credit = scored.credit
        add(_levels(credit.weight - 1, credit.cap - 1, 1 - credit.floor), "w", "v")
        add(
            _levels(np.sign(credit.advantage) * np.sqrt(np.abs(credit.token_advantage)), scale**0.5, scale**0.5),
            "p",
            "n",
        )
        if scored.features is not None:
            add(np.searchsorted(NATS, np.nan_to_num(scored.features.divergence, nan=0, posinf=9), "right"), "d")
        if scored.creditable is not None:
            add(~scored.creditable & rollout.mask, "m")
    assert len(names) == size
    return [" ".join(some).replace("m1", "m") for some in names]


def _levels(values: Floats, above: float, below: float) -> Any:
    """From -9 to 9, zero only for zero: where a value stands between nothing and the most there is on its side."""
    most = np.where(values > 0, above, below)
    share = np.divide(np.abs(values), most, out=np.zeros(len(values)), where=most > 0)
    return (np.sign(values) * np.ceil(np.minimum(share, 1) * LEVELS - 1e-6)).astype(int)


def kinds() -> dict[int, str]:
    """Names of what a token can be, by the number in its look."""
    return {int(kind): kind.name.lower() for kind in Kind if kind is not Kind.GLUE}
