"""Tests whether the policy reads its references, by pairs of siblings under the own and the swapped reference."""

from collections.abc import Sequence

from sgcd.measure.credit_warnings import describe_sure_divergence
from sgcd.measure.statistics import Estimate, clustered_interval
from sgcd.measure.validity import WINDOW_STEPS
from sgcd.storage.credit_metrics import ReadingCounts
from sgcd.storage.metrics import StepMetrics

MIN_PAIRS = 20
"""Fewer pairs decide nothing."""
MAX_PAIRS = 50
"""The newest pairs are judged, about this many, because a policy learns to read and unlearns it."""
_SETTLED = 0.5
"""The share of pairs that any text reaches which says nothing of success and failure."""


def newest_reading_counts(rows: Sequence[StepMetrics]) -> list[ReadingCounts]:
    """The counts of the newest groups, about `MAX_PAIRS` pairs."""
    newest: list[ReadingCounts] = []
    for counts in (counts for row in reversed(rows) if row.credit for counts in reversed(row.credit.reading or [])):
        if sum(one.pairs for one in newest) >= MAX_PAIRS:
            break
        newest.append(counts)
    return newest[::-1]


def own_above_swapped(groups: Sequence[ReadingCounts]) -> Estimate:
    """The share of pairs in which the own reference prefers the success more than the swapped one does."""
    return clustered_interval(
        [counts.own_above_swapped for counts in groups], [counts.swapped_pairs for counts in groups]
    )


def why_not_read(rows: Sequence[StepMetrics]) -> str:
    """Why the policy does not read its references, in a few words; empty where nothing shows that.

    It does not when the divergence is where the student is sure over a whole window, or when a sample of at least
    `MIN_PAIRS` pairs does not tell the own reference from the swapped one.
    """
    window = rows[-WINDOW_STEPS:]
    if len(window) == WINDOW_STEPS and (finding := describe_sure_divergence(window)):
        return finding
    groups = newest_reading_counts(rows)
    estimate = own_above_swapped(groups)
    if sum(counts.swapped_pairs for counts in groups) < MIN_PAIRS or estimate.low is None or estimate.low > _SETTLED:
        return ""
    return f"own above swapped in {format_estimate(estimate)} of pairs"


def reading_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """That the policy does not read its references, with what to do."""
    if not (why := why_not_read(rows)):
        return []
    is_one = any(row.credit and "not_read" in row.credit.reasons for row in rows[-WINDOW_STEPS:])
    effect = "weights are one" if is_one else "its weights find where it is in doubt, which its entropy says too"
    return [
        f"the policy does not read its references ({why}): {effect}; teach it to read them in a supervised start, or "
        "take a method without a teacher"
    ]


def format_estimate(estimate: Estimate) -> str:
    """A share with its interval: .41 [.28, .54]."""
    value, low, high = (
        f"{number:.2f}".replace("0.", ".", 1) for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"
