"""What a page shows of a token: its colours by weight, divergence, advantage and kind, and the numbers of its card."""

from typing import Any

import numpy as np

from sgcd.credit_records import CreditRecord
from sgcd.records import Flags, Floats, Group, Rollout, TokenKind

TokenNumbers = dict[str, Any]

MAX_HEAD_TOKENS, MAX_TAIL_TOKENS = 1_000, 500
"""Tokens of a long rollout that the page shows from its beginning and from its end."""
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
        if credit_record.outside_literals is not None:
            add(~credit_record.outside_literals & rollout.response_mask, "m")
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


def shown_mask(mask: Flags) -> Flags:
    """Mark the shown tokens of a response: all policy tokens, or the head and the tail of a long response."""
    num_written = int(mask.sum())
    if num_written <= MAX_HEAD_TOKENS + MAX_TAIL_TOKENS:
        return mask
    rank = np.cumsum(mask) - 1
    return mask & ((rank < MAX_HEAD_TOKENS) | (rank >= num_written - MAX_TAIL_TOKENS))


def token_numbers(rollout: Rollout, credit_record: CreditRecord | None) -> TokenNumbers:
    """Numbers of the shown tokens, in order; a number that all tokens share is written once."""
    show_mask = shown_mask(rollout.response_mask)
    numbers: TokenNumbers = {"place": np.flatnonzero(show_mask).tolist(), "id": rollout.response[show_mask].tolist()}
    if credit_record is None:
        return numbers
    numbers |= {
        "advantage": short_number(credit_record.credit.advantage),
        "weight": _short_numbers(credit_record.credit.weight[show_mask]),
    }
    if credit_record.features is not None:
        features = credit_record.features
        feature_values = {
            "divergence": features.divergence,
            "entropy": features.teacher_entropy,
            "gap": features.teacher_logprob_gap,
        }
        for name, values in feature_values.items():
            numbers[name] = _short_numbers(values[show_mask])
    if credit_record.saliency is not None:
        numbers["saliency"] = _short_numbers(credit_record.saliency[show_mask])
    if credit_record.outside_literals is not None:
        numbers["masked"] = np.flatnonzero(~credit_record.outside_literals[show_mask]).tolist()
    return numbers


def _short_numbers(values: Floats) -> Any:
    numbers = [short_number(float(value)) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def short_number(value: float) -> float | None:
    """Round to four significant digits; JSON knows no NaN."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def count_shown_tokens(group: Group) -> int:
    """Count the tokens of a group that the page would show."""
    return sum(
        min(rollout.num_policy_tokens, MAX_HEAD_TOKENS + MAX_TAIL_TOKENS)
        for rollout in (*group.rollouts, *group.broken)
    )
