"""Reasons that make a run invalid: a broken mask or training graph, features that are all zero, inert weights."""

from collections.abc import Sequence

from sgcd.storage.metrics import StepMetrics

WINDOW_STEPS = 10
"""Features and weights are judged over this many steps, or over the whole of a shorter run."""
_MIN_CREDITED_SHARE = 0.005
"""Below this share of creditable tokens above weight one, weights do nothing."""


def newest_invalid_reasons(rows: Sequence[StepMetrics], is_last: bool) -> list[str]:
    """Why the newest of `rows` makes its run invalid, by itself or together with the nine steps before it.

    `is_last`: the run ends with it, so a run of fewer than ten steps is judged as a whole.
    """
    window = rows[-WINDOW_STEPS:]
    return [*step_violations(rows[-1]), *(window_violations(window) if len(window) == WINDOW_STEPS or is_last else ())]


def run_invalid_reasons(rows: Sequence[StepMetrics]) -> list[str]:
    """Why a run proves nothing: each kind of reason once, with the steps that show it first; empty for a valid run."""
    reasons_by_kind: dict[str, str] = {}
    for end in range(1, len(rows) + 1):
        window = rows[max(0, end - WINDOW_STEPS) : end]
        reasons = [(reason, window[-1:]) for reason in step_violations(window[-1])]
        if end >= WINDOW_STEPS or end == len(rows):
            reasons += [(reason, window) for reason in window_violations(window)]
        for reason, reason_rows in reasons:
            reasons_by_kind.setdefault(reason.partition(":")[0], f"{reason} ({_step_range(reason_rows)})")
    return list(reasons_by_kind.values())


def step_violations(row: StepMetrics) -> list[str]:
    """Errors of a single step: the mask covers tokens that the policy did not write, or the teacher gets a gradient."""
    violations: list[str] = []
    if row.foreign:
        violations.append(f"mask: it covers {count_noun(row.foreign, 'token')} that the policy did not write")
    if row.in_graph:
        violations.append(f"graph: {count_noun(row.in_graph, 'row')} of another context than the policy's in the loss")
    return violations


def window_violations(rows: Sequence[StepMetrics]) -> list[str]:
    """All features are zero, or no weight does anything, although there were references and gamma is not 0."""
    weighted = [row.credit for row in rows if row.credit and row.credit.weighs and row.credit.creditable]
    if not weighted:
        return []
    if all(credit.divergence.max == 0 for credit in weighted):
        num_tokens = sum(credit.tokens for credit in weighted)
        return [f"features: the divergence of {count_noun(num_tokens, 'token')} is zero"]
    credited, creditable = sum(credit.credited for credit in weighted), sum(credit.creditable for credit in weighted)
    if credited < _MIN_CREDITED_SHARE * creditable:
        share = f"{100 * credited / creditable:.2g} %"
        return [f"weights: inert, {share} of {count_noun(creditable, 'creditable token')} above weight one"]
    return []


def count_noun(number: int, noun: str) -> str:
    """
    >>> count_noun(1, "step"), count_noun(2, "step")
    ('1 step', '2 steps')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _step_range(rows: Sequence[StepMetrics]) -> str:
    first, last = rows[0].step, rows[-1].step
    return f"step {last}" if first == last else f"steps {first} to {last}"
