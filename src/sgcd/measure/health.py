"""The health of a run in words, from its rows of metrics: what stops it from learning, and what it is losing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MetricsRow = Mapping[str, Any]

# From where on something is said. They are rules of thumb; nothing but the words depends on them.
_SAME_OUTCOME_SHARE = 0.75
_LIMIT_HIT_SHARE = 1 / 3
_SAMPLER_MISMATCH_NATS = 0.05
_CLIPPED_SHARE = 0.2
_CALL_ERROR_SHARE = 0.5
_MALFORMED_TURNS_PER_ROLLOUT = 0.25
_NO_TOOL_SHARE = 0.5
_MIN_SUCCESSES = 4
"""Successes below this number are no base for a share."""

# What makes a run invalid is judged over this many steps, or over the whole of a shorter run.
WINDOW_STEPS = 10
_MIN_CREDITED_SHARE = 0.005
"""Below this share of creditable tokens above weight one, weights do nothing."""
_MAX_CREDITED_SHARE = 0.4
"""Above this share they point at nothing; a warning, since such weights are still bounded and keep every sign."""


def step_warnings(row: MetricsRow) -> list[str]:
    """What is wrong with one step, the gravest first; empty when nothing is."""
    return [
        *(f"INVALID: {reason}" for reason in row.get("invalid", ())),
        *skipped_warnings(row),
        *broken_warnings(row),
        *reference_warnings(row),
        *endpoint_warnings([row]),
        *same_outcome_warnings(row),
        *end_reason_warnings(row),
        *mismatch_warnings(row),
        *tool_warnings(row),
    ]


def invalid_reasons(rows: Sequence[MetricsRow], is_last: bool) -> list[str]:
    """Why the newest of `rows` makes its run invalid: what it shows by itself, and what ten steps show together.

    `last` says that the run ends with it, so that a shorter run is judged as a whole.
    """
    window = rows[-WINDOW_STEPS:]
    return [*step_violations(rows[-1]), *(window_violations(window) if len(window) == WINDOW_STEPS or is_last else ())]


def run_invalid_reasons(rows: Sequence[MetricsRow]) -> list[str]:
    """Why a run proves nothing: each reason once, with the steps at which it was first found; empty when it may."""
    reasons_by_kind: dict[str, str] = {}
    for end in range(1, len(rows) + 1):
        window = rows[max(0, end - WINDOW_STEPS) : end]
        reasons = [(reason, window[-1:]) for reason in step_violations(window[-1])]
        if end >= WINDOW_STEPS or end == len(rows):
            reasons += [(reason, window) for reason in window_violations(window)]
        for reason, reason_rows in reasons:
            reasons_by_kind.setdefault(reason.partition(":")[0], f"{reason} ({_step_range(reason_rows)})")
    return list(reasons_by_kind.values())


def _step_range(rows: Sequence[MetricsRow]) -> str:
    first, last = rows[0]["step"], rows[-1]["step"]
    return f"step {last}" if first == last else f"steps {first} to {last}"


def step_violations(row: MetricsRow) -> list[str]:
    """What must not happen once: the mask holds what the policy did not write, the teacher gets a gradient."""
    violations: list[str] = []
    if row.get("foreign"):
        violations.append(f"mask: it covers {count_noun(row['foreign'], 'token')} that the policy did not write")
    if row.get("in_graph"):
        violations.append(
            f"graph: {count_noun(row['in_graph'], 'row')} of another context than the policy's in the loss"
        )
    return violations


def window_violations(rows: Sequence[MetricsRow]) -> list[str]:
    """Dense features that are all zero, or weights that do nothing, where there were references and gamma is not 0."""
    credit_metrics = [row["credit"] for row in rows if row.get("credit")]
    weighted = [metrics for metrics in credit_metrics if metrics["weighs"] and metrics["creditable"]]
    if not weighted:
        return []
    if all(metrics["divergence"]["max"] == 0 for metrics in weighted):
        return [
            f"features: the divergence of {count_noun(sum(metrics['tokens'] for metrics in weighted), 'token')} is zero"
        ]
    credited, creditable = (sum(metrics[name] for metrics in weighted) for name in ("credited", "creditable"))
    if credited < _MIN_CREDITED_SHARE * creditable:
        share = f"{100 * credited / creditable:.2g} %"
        return [f"weights: inert, {share} of {count_noun(creditable, 'creditable token')} above weight one"]
    return []


def skipped_warnings(row: MetricsRow) -> list[str]:
    return [f"step skipped: {row['skipped']}"] if row["skipped"] else []


def broken_warnings(row: MetricsRow) -> list[str]:
    if not row["broken"]:
        return []
    cause, *others = sorted(row["causes"], key=lambda cause: -row["causes"][cause])
    suffix = f", and {count_noun(len(others), 'other cause')}" if others else ""
    return [f"{row['broken']} of {count_noun(row['rollouts'], 'rollout')} broken: {cause}{suffix}"]


def reference_warnings(row: MetricsRow) -> list[str]:
    """Groups and rollouts that had no reference, and features that were no numbers: these learn as GRPO does."""
    metrics, credit_metrics = row.get("reference"), row.get("credit")
    if not metrics or not credit_metrics:
        return []
    warnings: list[str] = []
    num_missing = metrics["groups"] - metrics["written"]
    if num_missing:
        warnings.append(
            f"{num_missing} of {count_noun(metrics['groups'], 'group')} without a reference: {metrics['example']}"
        )
    if metrics["no_room"]:
        warnings.append(f"{count_noun(metrics['no_room'], 'rollout')} left the reference no room in the model's window")
    if credit_metrics["nonfinite"]:
        num_uncredited = credit_metrics["reasons"].get("nonfinite", 0)
        suffix = f", {count_noun(num_uncredited, 'rollout')} without credit for it" if num_uncredited else ""
        warnings.append(f"{count_noun(credit_metrics['nonfinite'], 'token')} with features that are not finite{suffix}")
    return warnings


ENDPOINT_ROLES = {"endpoint": "writer", "user": "user"}
"""Models over the network, by the key of a row that has their figures."""


def endpoint_warnings(rows: Sequence[MetricsRow]) -> list[str]:
    """Calls over the network that brought nothing, by kind, and other trouble with each model."""
    return [
        line
        for key, role in ENDPOINT_ROLES.items()
        for line in endpoint_failure_warnings([row[key] for row in rows if row.get(key)], role)
    ]


def endpoint_failure_warnings(rows: Sequence[MetricsRow], role: str) -> list[str]:
    """Of one model."""
    failures = Counter[str]()
    for row in rows:
        failures.update(row["failures"])
    warnings: list[str] = []
    if failures:
        kinds = ", ".join(f"{kind} {count}" for kind, count in failures.most_common())
        calls_made = count_noun(sum(row["calls"] for row in rows), "call")
        warnings.append(f"{failures.total()} of {calls_made} of the {role} failed: {kinds}")
    if forgotten := sum(row["forgotten"] for row in rows):
        warnings.append(f"the cache of answers of the {role} could not be used {count_noun(forgotten, 'time')}")
    return warnings


def same_outcome_warnings(row: MetricsRow) -> list[str]:
    num_solved, num_failed, num_tasks = row["uniform_success"], row["uniform_failure"], row["tasks"]
    if not num_tasks or (num_solved + num_failed) / num_tasks < _SAME_OUTCOME_SHARE:
        return []
    explanation = (
        "all succeed"
        if not num_failed
        else "all fail"
        if not num_solved
        else f"all succeed in {num_solved}, all fail in {num_failed}"
    )
    return [
        f"{num_solved + num_failed} of {count_noun(num_tasks, 'task')}: siblings agree, nothing to learn "
        f"({explanation})"
    ]


def end_reason_warnings(row: MetricsRow) -> list[str]:
    """How many rollouts a limit ended; broken ones have no ending of their own."""
    num_finished = row["rollouts"] - row["broken"]
    warnings: list[str] = []
    for end_reason, limit_name in (("token_limit", "token limit"), ("turn_limit", "turn limit")):
        num_hit = row["endings"].get(end_reason, 0)
        if num_finished and num_hit == num_finished:
            warnings.append(f"every rollout hits the {limit_name}")
        elif num_finished and num_hit / num_finished >= _LIMIT_HIT_SHARE:
            warnings.append(f"{num_hit} of {count_noun(num_finished, 'rollout')} hit the {limit_name}")
    num_truncated = row["cuts"].get("observation", 0)
    if num_finished and num_truncated >= num_finished:
        warnings.append(
            f"observations were cut {count_noun(num_truncated, 'time')} in {count_noun(num_finished, 'rollout')}"
        )
    return warnings


def mismatch_warnings(row: MetricsRow) -> list[str]:
    """Whether the policy that learns is still the one that played."""
    warnings: list[str] = []
    mismatch, clip_share = row.get("sampler_gap_mean"), row.get("clip_share")
    if mismatch is not None and mismatch >= _SAMPLER_MISMATCH_NATS:
        warnings.append(f"sampler and trainer disagree by {mismatch:.2g} nats a token")
    if clip_share is not None and clip_share >= _CLIPPED_SHARE:
        warnings.append(f"clip share {format_percent(clip_share)}")
    return warnings


def tool_warnings(row: MetricsRow) -> list[str]:
    warnings: list[str] = []
    if row["calls_in_error"] is not None and row["calls_in_error"] >= _CALL_ERROR_SHARE:
        warnings.append(f"{format_percent(row['calls_in_error'])} of {count_noun(row['calls'], 'call')} in error")
    if row["rollouts"] and row["malformed_turns"] / row["rollouts"] >= _MALFORMED_TURNS_PER_ROLLOUT:
        turns, rollouts = count_noun(row["malformed_turns"], "turn"), count_noun(row["rollouts"], "rollout")
        warnings.append(f"{turns} in {rollouts} held a call that could not be read")
    for category, audit in row["audit"].items():
        num_without_tool, num_successes = audit["without_tool"], audit["successes"]
        if num_successes >= _MIN_SUCCESSES and num_without_tool / num_successes >= _NO_TOOL_SHARE:
            warnings.append(f"{num_without_tool} of {num_successes} {category} successes called no tool")
    return warnings


def run_warnings(rows: Sequence[MetricsRow]) -> list[str]:
    """What went wrong over a whole run: steps without an update, and what its last quarter lost against its first."""
    return [
        *(f"INVALID: {reason}" for reason in run_invalid_reasons(rows)),
        *skipped_steps_warnings(rows),
        *broken_rollouts_warnings(rows),
        *missing_reference_warnings(rows),
        *endpoint_warnings(rows),
        *scattered_credit_warnings(rows),
        *decline_warnings(rows),
    ]


def scattered_credit_warnings(rows: Sequence[MetricsRow]) -> list[str]:
    """Credit that is nearly everywhere, over the last steps that are judged together."""
    credit_metrics = [row["credit"] for row in rows[-WINDOW_STEPS:] if row.get("credit")]
    credited, creditable = (sum(metrics[name] for metrics in credit_metrics) for name in ("credited", "creditable"))
    if not creditable or credited <= _MAX_CREDITED_SHARE * creditable:
        return []
    return [f"credit is not localised: {format_percent(credited / creditable)} of creditable tokens above weight one"]


def skipped_steps_warnings(rows: Sequence[MetricsRow]) -> list[str]:
    reasons = Counter(str(row["skipped"]) for row in rows if row["skipped"])
    if not reasons:
        return []
    explanation = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return [f"{reasons.total()} of {count_noun(len(rows), 'step')} moved nothing: {explanation}"]


def broken_rollouts_warnings(rows: Sequence[MetricsRow]) -> list[str]:
    causes: Counter[str] = Counter()
    for row in rows:
        causes.update(row["causes"])
    totals = {"broken": sum(row["broken"] for row in rows), "rollouts": sum(row["rollouts"] for row in rows)}
    return broken_warnings({**totals, "causes": causes})


def missing_reference_warnings(rows: Sequence[MetricsRow]) -> list[str]:
    """Groups that learnt as with GRPO, for want of a reference."""
    reference_metrics = [row["reference"] for row in rows if row.get("reference")]
    causes = Counter[str]()
    for metrics in reference_metrics:
        causes.update(metrics["causes"])
    if not causes:
        return []
    explanation = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
    return [
        f"{causes.total()} of {count_noun(sum(metrics['groups'] for metrics in reference_metrics), 'group')} without "
        f"a reference: {explanation}"
    ]


def decline_warnings(rows: Sequence[MetricsRow]) -> list[str]:
    """The last quarter against the first; fewer than eight steps have no quarters to speak of."""
    quarter = len(rows) // 4
    if quarter < 2:
        return []
    first_quarter, last_quarter = rows[:quarter], rows[-quarter:]

    def change(get_value: Callable[[MetricsRow], float | None]) -> tuple[float, float] | None:
        before, after = mean_of_measured(first_quarter, get_value), mean_of_measured(last_quarter, get_value)
        return None if before is None or after is None else (before, after)

    warnings: list[str] = []
    success = change(lambda row: row["success"])
    if success and success[1] < success[0] - 0.1:
        warnings.append(f"success in training fell from {format_percent(success[0])} to {format_percent(success[1])}")
    for category in ("information", "action"):
        calls_per_success = change(lambda row, category_name=category: row["audit"][category_name]["tools_per_success"])
        if calls_per_success and calls_per_success[1] < calls_per_success[0] / 2:
            warnings.append(
                f"calls per {category} success fell from {calls_per_success[0]:.1f} to {calls_per_success[1]:.1f}"
            )
    errors = change(lambda row: row["calls_in_error"])
    if errors and errors[1] > errors[0] + 0.1:
        warnings.append(f"calls in error rose from {format_percent(errors[0])} to {format_percent(errors[1])}")
    entropy = change(lambda row: row["entropy"])
    if entropy and entropy[1] < entropy[0] / 10:
        warnings.append(f"entropy fell from {entropy[0]:.2g} to {entropy[1]:.2g} nats")
    return warnings


def mean_of_measured(rows: Sequence[MetricsRow], get_value: Callable[[MetricsRow], float | None]) -> float | None:
    """Mean over the rows in which there was something to measure."""
    values = [value for value in map(get_value, rows) if value is not None]
    return sum(values) / len(values) if values else None


def format_percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def count_noun(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
