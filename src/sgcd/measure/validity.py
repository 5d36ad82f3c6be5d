"""Reasons that make a run invalid or fruitless: a broken mask or graph, inert weights, no step that moved anything."""

from collections import Counter
from collections.abc import Mapping, Sequence

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
    weighted = [credit for credit in weighted if credit.scored and "not_read" not in credit.reasons]
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


def fruitless_reason(rows: Sequence[StepMetrics]) -> str:
    """Why a finished run has no result: most rollouts broke, or no step moved the policy; empty where it has one."""
    num_rollouts, num_broken = sum(row.rollouts for row in rows), sum(row.broken for row in rows)
    if 2 * num_broken > num_rollouts:
        causes = Counter[str]()
        for row in rows:
            causes.update(row.causes)
        counted = f"{num_broken} of {count_noun(num_rollouts, 'rollout')} broke"
        return f"{counted}, {describe_commonest_cause(causes)}; mend that"
    if not rows or not all(row.skipped for row in rows):
        return ""
    [(reason, _)] = Counter(row.skipped for row in rows).most_common(1)
    return f"none of {count_noun(len(rows), 'step')} moved the policy: {reason}{_fruitless_advice(rows)}"


def _fruitless_advice(rows: Sequence[StepMetrics]) -> str:
    if any(row.mixed for row in rows):
        return ""
    num_solved, num_failed = sum(row.uniform_success for row in rows), sum(row.uniform_failure for row in rows)
    if num_failed and not num_solved:
        return " (success .0 on all tasks); start with supervised training on solved tasks, or take easier tasks"
    if num_solved and not num_failed:
        return " (success 1.0 on all tasks); take harder tasks"
    return "; take tasks of middling difficulty, larger groups, or a higher sampler.temperature"


def describe_commonest_cause(causes: Mapping[str, int]) -> str:
    """The kind of cause that broke most, and the first text of it.

    >>> describe_commonest_cause({"reply: KeyError: 'gold'": 2, "open: OSError: no disk": 3, "reply: KeyError: 'a'": 2})
    "4 of them by reply: KeyError; the first text: reply: KeyError: 'gold'"
    """
    kinds, first_texts = Counter[str](), dict[str, str]()
    for cause, count in causes.items():
        kind = ": ".join(cause.split(": ")[:2])
        kinds[kind] += count
        first_texts.setdefault(kind, cause)
    if not kinds:
        return "for no cause on record"
    [(kind, count)] = kinds.most_common(1)
    text = first_texts[kind]
    return f"{count} of them by {kind}" + (f"; the first text: {text}" if text != kind else "")


def count_noun(number: int, noun: str) -> str:
    """
    >>> count_noun(1, "step"), count_noun(2, "step")
    ('1 step', '2 steps')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_percent(share: float) -> str:
    """
    >>> format_percent(0.69)
    '69 %'
    """
    return f"{100 * share:.0f} %"


def _step_range(rows: Sequence[StepMetrics]) -> str:
    first, last = rows[0].step, rows[-1].step
    return f"step {last}" if first == last else f"steps {first} to {last}"
