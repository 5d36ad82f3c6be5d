"""Metrics of a step's rollouts: counts, success, truncations, failed calls and the zero-tool audit."""

from collections import Counter
from collections.abc import Sequence

from sgcd.act.siblings import CollectedGroups
from sgcd.measure.evaluate import rollout_row
from sgcd.measure.summary import audit_tool_use, divide_or_none, sum_column
from sgcd.records import Group, Rollout
from sgcd.storage.metrics import RolloutMetrics, ToolAudit


def rollout_metrics(collected: CollectedGroups) -> RolloutMetrics:
    """Counts over everything that was played: the kept groups alone do not show what the policy can do."""
    groups = all_groups(collected)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    broken = [rollout for group in groups for rollout in group.broken]
    rows = [rollout_row(rollout) for rollout in rollouts]
    uniform_counts = Counter(_uniform_outcome(group) for group in collected.same_outcome)
    return RolloutMetrics(
        tasks=len(groups),
        kept=len(collected.kept),
        mixed=len(collected.kept) + len(collected.extra),
        uniform_success=uniform_counts["success"],
        uniform_failure=uniform_counts["failure"],
        too_few=uniform_counts["too few"],
        rounds=collected.rounds,
        rollouts=len(rollouts) + len(broken),
        broken=len(broken),
        causes=dict(Counter(rollout.broken for rollout in broken).most_common()),
        tokens_sampled=sum(rollout.num_policy_tokens for rollout in (*rollouts, *broken)),
        tokens_learnt=sum(rollout.num_policy_tokens for group in collected.kept for rollout in group.rollouts),
        reward=divide_or_none(sum_column(rows, "reward"), len(rows)),
        success=divide_or_none(sum_column(rows, "success"), len(rows)),
        calls=int(sum_column(rows, "calls")),
        calls_in_error=divide_or_none(sum_column(rows, "failed_calls"), sum_column(rows, "calls")),
        malformed_turns=int(sum_column(rows, "malformed")),
        inexact_turns=int(sum_column(rows, "inexact")),
        cuts=count_truncations([*rollouts, *broken]),
        endings=dict(sorted(Counter(str(rollout.end_reason) for rollout in rollouts).items())),
        audit={name: ToolAudit(**audit) for name, audit in audit_tool_use(rows).items()},
    )


def all_groups(collected: CollectedGroups) -> list[Group]:
    return [*collected.kept, *collected.extra, *collected.same_outcome]


def count_truncations(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """Truncations by the name of the limit."""
    counts: Counter[str] = Counter()
    for rollout in rollouts:
        counts.update(rollout.truncations)
    return dict(sorted(counts.items()))


def _uniform_outcome(group: Group) -> str:
    """The outcome of a group that is not mixed: that of its first sibling."""
    if len(group.rollouts) < 2:
        return "too few"
    return "success" if group.rollouts[0].success else "failure"
