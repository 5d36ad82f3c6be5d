"""The numbers of the tokens that a page shows, for the card that opens over a token."""

from typing import Any

import numpy as np

from sgcd.credit_records import CreditRecord
from sgcd.records import Flags, Floats, Group, Rollout

TokenNumbers = dict[str, Any]

MAX_HEAD_TOKENS, MAX_TAIL_TOKENS = 1_000, 500
"""Tokens of a long rollout that the page shows from its beginning and from its end."""


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
            "entropy": features.entropy,
            "gap": features.teacher_logprob_gap,
        }
        for name, values in feature_values.items():
            numbers[name] = _short_numbers(values[show_mask])
    if credit_record.saliency is not None:
        numbers["saliency"] = _short_numbers(credit_record.saliency[show_mask])
    if credit_record.creditable is not None:
        numbers["masked"] = np.flatnonzero(~credit_record.creditable[show_mask]).tolist()
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
