"""What a token looks like: names of colours for its weight, its divergence, its advantage and its kind."""

from typing import Any

import numpy as np

from sgcd.records import CreditRecord, Floats, Rollout, TokenKind

_NUM_LEVELS = 9
DIVERGENCE_LEVELS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
"""From these divergences on a token has colour 1, 2, ... 9."""


def build_token_classes(rollout: Rollout, credit_record: CreditRecord | None, max_advantage: float) -> list[str]:
    """The colours of every token, as names of classes: w weight above one, v below, d divergence, p and n advantage,
    k kind, m masked literal. A token without colour has no name for it."""
    size = len(rollout.response)
    classes_by_token: list[list[str]] = [[f"k{kind}"] for kind in rollout.token_kinds]

    def add(level: Any, name: str, negative_name: str = "") -> None:
        for index in np.flatnonzero(level):
            classes_by_token[index].append(f"{name if level[index] > 0 else negative_name}{abs(int(level[index]))}")

    if credit_record is not None:
        credit = credit_record.credit
        add(_levels(credit.weight - 1, credit.cap - 1, 1 - credit.floor), "w", "v")
        add(
            _levels(
                np.sign(credit.advantage) * np.sqrt(np.abs(credit.token_advantage)),
                max_advantage**0.5,
                max_advantage**0.5,
            ),
            "p",
            "n",
        )
        if credit_record.features is not None:
            add(
                np.searchsorted(
                    DIVERGENCE_LEVELS, np.nan_to_num(credit_record.features.divergence, nan=0, posinf=9), "right"
                ),
                "d",
            )
        if credit_record.creditable is not None:
            add(~credit_record.creditable & rollout.response_mask, "m")
    assert len(classes_by_token) == size
    return [" ".join(classes).replace("m1", "m") for classes in classes_by_token]


def _levels(values: Floats, max_above: float, max_below: float) -> Any:
    """From -9 to 9, zero only for zero: where a value stands between nothing and the most there is on its side."""
    limits = np.where(values > 0, max_above, max_below)
    fractions = np.divide(np.abs(values), limits, out=np.zeros(len(values)), where=limits > 0)
    return (np.sign(values) * np.ceil(np.minimum(fractions, 1) * _NUM_LEVELS - 1e-6)).astype(int)


def token_kind_names() -> dict[int, str]:
    """Names of what a token can be, by the number in its look."""
    return {int(kind): kind.name.lower() for kind in TokenKind if kind is not TokenKind.GLUE}
