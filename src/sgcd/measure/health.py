"""Warnings about a run in words, from its metrics: what stops it from learning, and what it is losing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sgcd.measure.credit_warnings import credit_warnings
from sgcd.measure.reading import reading_warnings
from sgcd.measure.statistics import MIN_TASKS
from sgcd.measure.validity import count_noun, format_percent, run_invalid_reasons
from sgcd.storage.metrics import EndpointUsage, StepMetrics

# Thresholds of the warnings. They are rules of thumb; nothing but the warnings depends on them.
_SAME_OUTCOME_SHARE = 0.75
_LIMIT_HIT_SHARE = 1 / 3
_SAMPLER_MISMATCH_NATS = 0.05
_CLIPPED_SHARE = 0.2
_CALL_ERROR_SHARE = 0.5
_MALFORMED_TURNS_PER_ROLLOUT = 0.25
_NO_TOOL_SHARE = 0.5
_MIN_SUCCESSES = 4
"""Fewer successes than this are no base for a share."""


# -- one step ---------------------------------------------------------------------------------------------------------


def step_warnings(row: StepMetrics) -> list[str]:
    """The problems of one step, the gravest first."""
    return [
        *(f"INVALID: {reason}" for reason in row.invalid),
        *([f"step skipped: {row.skipped}"] if row.skipped else []),
        *broken_warnings(row.broken, row.rollouts, row.causes),
        *reference_warnings(row),
        *endpoint_warnings([row]),
        *same_outcome_warnings(row),
        *end_reason_warnings(row),
        *mismatch_warnings(row),
        *tool_warnings(row),
    ]


def broken_warnings(num_broken: int, num_rollouts: int, causes: Mapping[str, int]) -> list[str]:
    """Broken rollouts, with their most frequent cause."""
    if not num_broken:
        return []
    cause, *others = sorted(causes, key=lambda cause: -causes[cause])
    suffix = f", and {count_noun(len(others), 'other cause')}" if others else ""
    return [f"{num_broken} of {count_noun(num_rollouts, 'rollout')} broken: {cause}{suffix}"]


def reference_warnings(row: StepMetrics) -> list[str]:
    """Groups and rollouts without a reference, and features that are not finite: these learn as under GRPO."""
    reference, credit = row.reference, row.credit
    if not reference or not credit:
        return []
    warnings: list[str] = []
    if num_missing := reference.groups - reference.written:
        groups = count_noun(reference.groups, "group")
        warnings.append(f"{num_missing} of {groups} without a reference: {reference.example}")
    if reference.by_reward:
        warnings.append(
            f"{reference.by_reward} of {count_noun(reference.written, 'reference')} compare better with worse rewards: "
            "in their groups no sibling reaches environment.success, or all do"
        )
    if num_left_out := reference.exceeds_window:
        warnings.append(f"{count_noun(num_left_out, 'rollout')} left the reference no room in the model's window")
    if credit.nonfinite:
        num_uncredited = credit.reasons.get("nonfinite", 0)
        suffix = f", {count_noun(num_uncredited, 'rollout')} without credit for it" if num_uncredited else ""
        warnings.append(f"{count_noun(credit.nonfinite, 'token')} with features that are not finite{suffix}")
    return warnings


def same_outcome_warnings(row: StepMetrics) -> list[str]:
    """Most groups have siblings of equal rewards, or nearly so: they have nothing to contrast."""
    num_solved, num_failed = row.uniform_success, row.uniform_failure
    if not row.tasks or (num_solved + num_failed) / row.tasks < _SAME_OUTCOME_SHARE:
        return []
    explanation = f"all succeed in {num_solved}, all fail in {num_failed}"
    if not num_failed:
        explanation = "all succeed"
    elif not num_solved:
        explanation = "all fail"
    tasks = count_noun(row.tasks, "task")
    return [
        f"{num_solved + num_failed} of {tasks}: the siblings' rewards hardly differ, nothing to learn ({explanation})"
    ]


def end_reason_warnings(row: StepMetrics) -> list[str]:
    """Rollouts that a limit ended, and observations that it cut; broken rollouts have no end reason."""
    num_finished = row.rollouts - row.broken
    if not num_finished:
        return []
    warnings: list[str] = []
    for end_reason, limit_name in (("token_limit", "token limit"), ("turn_limit", "turn limit")):
        num_hit = row.endings.get(end_reason, 0)
        if num_hit == num_finished:
            warnings.append(f"every rollout hits the {limit_name}")
        elif num_hit / num_finished >= _LIMIT_HIT_SHARE:
            warnings.append(f"{num_hit} of {count_noun(num_finished, 'rollout')} hit the {limit_name}")
    num_truncated = row.cuts.get("observation", 0)
    if num_truncated >= num_finished:
        times, rollouts = count_noun(num_truncated, "time"), count_noun(num_finished, "rollout")
        warnings.append(f"observations were cut {times} in {rollouts}")
    return warnings


def mismatch_warnings(row: StepMetrics) -> list[str]:
    """The policy that learns differs from the one that sampled."""
    warnings: list[str] = []
    if row.sampler_gap_mean is not None and row.sampler_gap_mean >= _SAMPLER_MISMATCH_NATS:
        warnings.append(f"sampler and trainer disagree by {row.sampler_gap_mean:.2g} nats a token")
    if row.clip_share is not None and row.clip_share >= _CLIPPED_SHARE:
        warnings.append(f"clip share {format_percent(row.clip_share)}")
    return warnings


def tool_warnings(row: StepMetrics) -> list[str]:
    """Calls in error, calls that could not be read, and successes without a tool."""
    warnings: list[str] = []
    if row.calls_in_error is not None and row.calls_in_error >= _CALL_ERROR_SHARE:
        warnings.append(f"{format_percent(row.calls_in_error)} of {count_noun(row.calls, 'call')} in error")
    if row.rollouts and row.malformed_turns / row.rollouts >= _MALFORMED_TURNS_PER_ROLLOUT:
        turns, rollouts = count_noun(row.malformed_turns, "turn"), count_noun(row.rollouts, "rollout")
        warnings.append(f"{turns} in {rollouts} held a call that could not be read")
    for category, audit in row.audit.items():
        if audit.successes >= _MIN_SUCCESSES and audit.without_tool / audit.successes >= _NO_TOOL_SHARE:
            warnings.append(f"{audit.without_tool} of {audit.successes} {category} successes called no tool")
    return warnings


# -- a whole run ------------------------------------------------------------------------------------------------------


def run_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """The problems of a whole run, the gravest first."""
    return [
        *(f"INVALID: {reason}" for reason in run_invalid_reasons(rows)),
        *skipped_steps_warnings(rows),
        *broken_rollouts_warnings(rows),
        *missing_reference_warnings(rows),
        *endpoint_warnings(rows),
        *credit_warnings(rows),
        *reading_warnings(rows),
        *decline_warnings(rows),
    ]


def skipped_steps_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Steps that did not move the policy, by reason."""
    reasons = Counter(row.skipped for row in rows if row.skipped)
    if not reasons:
        return []
    explanation = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return [f"{reasons.total()} of {count_noun(len(rows), 'step')} moved nothing: {explanation}"]


def broken_rollouts_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Broken rollouts of the whole run."""
    causes = _sum_counts([row.causes for row in rows])
    return broken_warnings(sum(row.broken for row in rows), sum(row.rollouts for row in rows), causes)


def missing_reference_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Groups that learnt as under GRPO because they had no reference."""
    references = [row.reference for row in rows if row.reference]
    causes = _sum_counts([reference.causes for reference in references])
    if not causes:
        return []
    num_groups = sum(reference.groups for reference in references)
    explanation = ", ".join(f"{cause} ({count})" if len(causes) > 1 else cause for cause, count in causes.most_common())
    return [
        f"{causes.total()} of {count_noun(num_groups, 'group')} ({format_percent(causes.total() / num_groups)}) had no "
        f"reference and learned with weight one: {explanation}"
    ]


def decline_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Losses of a run's last quarter against its first; a run of fewer than eight steps is too short to compare."""
    quarter = len(rows) // 4
    if quarter < 2:
        return []
    first_quarter, last_quarter = rows[:quarter], rows[-quarter:]

    def change(get_value: Callable[[StepMetrics], float | None]) -> tuple[float, float] | None:
        before, after = mean_of_measured(first_quarter, get_value), mean_of_measured(last_quarter, get_value)
        return None if before is None or after is None else (before, after)

    def get_calls_per_success(category: str) -> Callable[[StepMetrics], float | None]:
        return lambda row: row.audit[category].tools_per_success if category in row.audit else None

    warnings: list[str] = []
    success = change(lambda row: row.success)
    if success and success[1] < success[0] - 0.1:
        warnings.append(f"success in training fell from {format_percent(success[0])} to {format_percent(success[1])}")
    for category in {category: None for row in rows for category in row.audit}:
        calls = change(get_calls_per_success(category))
        if calls and calls[1] < calls[0] / 2:
            warnings.append(f"calls per {category} success fell from {calls[0]:.1f} to {calls[1]:.1f}")
    errors = change(lambda row: row.calls_in_error)
    if errors and errors[1] > errors[0] + 0.1:
        warnings.append(f"calls in error rose from {format_percent(errors[0])} to {format_percent(errors[1])}")
    entropy = change(lambda row: row.entropy)
    if entropy and entropy[1] < entropy[0] / 10:
        warnings.append(f"entropy fell from {entropy[0]:.2g} to {entropy[1]:.2g} nats")
    return warnings


def fallen_category_warnings(change: Mapping[str, Any]) -> list[str]:
    """Categories whose success on held-out tasks fell beyond its interval, whatever the total did.

    `change` is the comparison of a run's end with its start, see `compare_evaluations`. No average shows such a fall.
    """
    warnings: list[str] = []
    for mode, part in change["modes"].items():
        total = part["overall"]
        if total["a"] is None:
            continue
        before, after = format_rate(total["b"]), format_rate(total["a"])
        direction = "stayed" if before == after else "rose" if total["a"] > total["b"] else "fell"
        warnings += [
            f"{name} fell from {format_rate(category['b'])} to {format_rate(category['a'])} while the total "
            f"{direction} ({before} to {after}), {change['split']} tasks, {mode}"
            for name, category in part["categories"].items()
            if direction_of_change(category) == "fell"
        ]
    return warnings


def direction_of_change(part: Mapping[str, Any]) -> str:
    """rose or fell, where the interval of a comparison's difference leaves out zero; empty where it does not.

    A difference that is the same on all tasks has no interval; it counts where there are enough tasks.
    """
    difference = part["difference"]
    low, high = difference["low"], difference["high"]
    if low is None and part["tasks"] >= MIN_TASKS:
        low = high = difference["value"]
    if low is None or low <= 0 <= high:
        return ""
    return "rose" if low > 0 else "fell"


# -- models over the network ------------------------------------------------------------------------------------------


def endpoint_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """Failed calls and cache failures of each model over the network."""
    return [
        line
        for role in ("writer", "user")
        for line in endpoint_failure_warnings(
            [row.endpoint_usage[role] for row in rows if role in row.endpoint_usage], role
        )
    ]


def endpoint_failure_warnings(usages: Sequence[EndpointUsage], role: str) -> list[str]:
    """Failed calls and cache failures of one model."""
    failures = _sum_counts([usage.failures for usage in usages])
    warnings: list[str] = []
    if failures:
        kinds = ", ".join(f"{kind} {count}" for kind, count in failures.most_common())
        calls = count_noun(sum(usage.calls for usage in usages), "call")
        warnings.append(f"{failures.total()} of {calls} of the {role} failed: {kinds}")
    if num_forgotten := sum(usage.forgotten for usage in usages):
        times = count_noun(num_forgotten, "time")
        warnings.append(f"the cache of answers of the {role} could not be used {times}")
    return warnings


def mean_of_measured(rows: Sequence[StepMetrics], get_value: Callable[[StepMetrics], float | None]) -> float | None:
    """Mean over the rows that measured the value."""
    values = [value for value in map(get_value, rows) if value is not None]
    return sum(values) / len(values) if values else None


def format_rate(rate: float) -> str:
    """
    >>> format_rate(0.478), format_rate(1.0)
    ('.48', '1.00')
    """
    return f"{rate:.2f}".removeprefix("0")


def _sum_counts(counts: Sequence[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return total
