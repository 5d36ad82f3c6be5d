"""Warnings that a run's credit is noise: it is everywhere, on ends of turns, or from references without content."""

from collections.abc import Sequence

from sgcd.measure.validity import WINDOW_STEPS, count_noun, format_percent
from sgcd.storage.credit_metrics import CreditMetrics, NoiseMetrics
from sgcd.storage.metrics import StepMetrics

# Rules of thumb; nothing but the warnings depends on them.
_MAX_CREDITED_SHARE = 0.4
"""Above this share of creditable tokens, weights point at nothing; they are still bounded and keep every sign."""
_MAX_SURE_SHARE = 0.2
"""Share of the divergence at tokens where the student is sure; below .05 where the reference stands well."""
_MAX_END_CREDIT = 0.5
"""Share of the credit that may be on ends of turns and of calls."""
_MAX_EQUAL_SHARE = 0.5
"""Share of the references that may be equal to one of another task."""


def credit_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """The problems of the credit of the last steps, which are judged together."""
    window = rows[-WINDOW_STEPS:]
    return [
        *sure_divergence_warnings(window),
        *end_of_turn_warnings(window),
        *equal_reference_warnings(window),
        *scattered_credit_warnings(window),
    ]


def sure_divergence_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Much of the divergence is where the student had no choice: the reference moves marks, not decisions."""
    if not (finding := describe_sure_divergence(rows)):
        return []
    return [
        f"{finding}: the reference changes marks, not decisions; look at its place in the prompt (sgcd references show "
        "RUN), or train with method.name=grpo"
    ]


def describe_sure_divergence(rows: Sequence[StepMetrics]) -> str:
    """How much of the divergence is where the student is sure, if that is too much; else empty."""
    noise = _noise_metrics(rows)
    total = sum(part.divergence for part in noise)
    sure = sum(part.sure_divergence for part in noise)
    if not total or sure <= _MAX_SURE_SHARE * total:
        return ""
    return f"{format_percent(sure / total)} of the divergence is at tokens where the policy is sure"


def end_of_turn_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Most of the credit is on ends of turns and calls, which decide nothing."""
    noise, credit = _noise_metrics(rows), _credit_metrics(rows)
    total = sum(part.extra_weight for part in noise)
    at_ends = sum(part.end_extra_weight for part in noise)
    num_ends, num_tokens = sum(part.end_tokens for part in noise), sum(part.tokens for part in credit)
    if not total or at_ends <= _MAX_END_CREDIT * total:
        return []
    return [
        f"{format_percent(at_ends / total)} of the credit is on ends of turns and calls, "
        f"{format_percent(num_ends / num_tokens)} of the tokens: they decide nothing; raise method.min_entropy"
    ]


def equal_reference_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """References that are equal to one of another task in the same step compare nothing of their own task."""
    references = [row.reference for row in rows if row.reference]
    num_equal, num_written = sum(part.equal for part in references), sum(part.written for part in references)
    if not num_equal or num_equal < _MAX_EQUAL_SHARE * num_written:
        return []
    return [
        f"{num_equal} of {count_noun(num_written, 'reference')} are equal to another task's: they hold nothing of "
        "their own task; take a language model as reference.writer, or tasks whose siblings part in their calls"
    ]


def scattered_credit_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Credit that is nearly everywhere although a teacher gives it."""
    parts = [credit for credit in _credit_metrics(rows) if credit.scored]
    credited, creditable = sum(part.credited for part in parts), sum(part.creditable for part in parts)
    if not creditable or credited <= _MAX_CREDITED_SHARE * creditable:
        return []
    return [f"credit is not localised: {format_percent(credited / creditable)} of creditable tokens above weight one"]


def _credit_metrics(rows: Sequence[StepMetrics]) -> list[CreditMetrics]:
    return [row.credit for row in rows if row.credit]


def _noise_metrics(rows: Sequence[StepMetrics]) -> list[NoiseMetrics]:
    return [credit.noise for credit in _credit_metrics(rows) if credit.noise]
