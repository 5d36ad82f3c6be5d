"""What a step's rollouts amount to: counts, success, cuts, failed calls and the zero-tool audit."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sgcd.act.siblings import Gathered
from sgcd.measure.evaluate import outcome
from sgcd.measure.summary import audit, per, total
from sgcd.records import Rollout, Siblings


def figures(gathered: Gathered) -> dict[str, Any]:
    """Of all that was played, kept or not: what the policy can do shows only in the whole."""
    groups = all_groups(gathered)
    played = [rollout for group in groups for rollout in group.rollouts]
    broken = [rollout for group in groups for rollout in group.broken]
    outcomes = [outcome(rollout) for rollout in played]
    uniform = Counter(_verdict_of(group) for group in gathered.uniform)
    return {
        "tasks": len(groups),
        "kept": len(gathered.kept),
        "mixed": len(gathered.kept) + len(gathered.surplus),
        "uniform_success": uniform["success"],
        "uniform_failure": uniform["failure"],
        "too_few": uniform["too few"],
        "rounds": gathered.rounds,
        "rollouts": len(played) + len(broken),
        "broken": len(broken),
        "causes": dict(Counter(rollout.broken for rollout in broken).most_common()),
        "tokens_sampled": sum(rollout.written for rollout in (*played, *broken)),
        "tokens_learnt": sum(rollout.written for group in gathered.kept for rollout in group.rollouts),
        "reward": per(total(outcomes, "reward"), len(outcomes)),
        "success": per(total(outcomes, "success"), len(outcomes)),
        "calls": total(outcomes, "calls"),
        "calls_in_error": per(total(outcomes, "failed_calls"), total(outcomes, "calls")),
        "malformed_turns": total(outcomes, "malformed"),
        "inexact_turns": total(outcomes, "inexact"),
        "cuts": cuts([*played, *broken]),
        "endings": dict(sorted(Counter(str(rollout.ending) for rollout in played).items())),
        "audit": audit(outcomes),
    }


def all_groups(gathered: Gathered) -> list[Siblings]:
    return [*gathered.kept, *gathered.surplus, *gathered.uniform]


def cuts(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """How often each limit cut something, by its name."""
    counted: Counter[str] = Counter()
    for rollout in rollouts:
        counted.update(rollout.cuts)
    return dict(sorted(counted.items()))


def _verdict_of(group: Siblings) -> str:
    """What the siblings of a group that is not mixed agree on."""
    if len(group.rollouts) < 2:
        return "too few"
    return "success" if group.rollouts[0].success else "failure"
