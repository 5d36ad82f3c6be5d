"""CSS classes of a token: colours by its weight, divergence, advantage and kind."""

from typing import Any

import numpy as np

from sgcd.credit_records import CreditRecord
from sgcd.records import Floats, Rollout, TokenKind

_NUM_LEVELS = 9
DIVERGENCE_LEVELS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
"""A token has colour n from the n-th of these divergences on."""


def build_token_classes(rollout: Rollout, credit_record: CreditRecord | None, max_advantage: float) -> list[str]:
    """The classes of every token: w weight above one, v below, d divergence, p and n advantage, k kind,
    m masked literal. A number from 1 to 9 follows; a value without colour has no class."""
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
    """Levels from -9 to 9, zero only for zero: a value's share of the limit on its side."""
    limits = np.where(values > 0, max_above, max_below)
    fractions = np.divide(np.abs(values), limits, out=np.zeros(len(values)), where=limits > 0)
    return (np.sign(values) * np.ceil(np.minimum(fractions, 1) * _NUM_LEVELS - 1e-6)).astype(int)


def token_kind_names() -> dict[int, str]:
    """Names of token kinds by the number in their class."""
    return {int(kind): kind.name.lower() for kind in TokenKind if kind is not TokenKind.GLUE}
