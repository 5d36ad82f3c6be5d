"""An evaluation in numbers: rates with intervals, overall and per category, and how the successes came about."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sgcd.measure.rows import MODES, SCHEMA, Row, by_task, successes, successes_and_trials, whole
from sgcd.measure.statistics import Estimate, clustered, pass_at_k, pass_hat_k, wilson
from sgcd.records import CATEGORIES

Summary = dict[str, Any]


def summarise(rows: Sequence[Row], floors: Mapping[str, float] | None = None) -> Summary:
    """One evaluation: {"schema", "step", "split", "modes": {"greedy": ..., "sampled": ...}}, modes that were played.

    `floors`: what an agent that does nothing would get in each category, where that is known.
    """
    places = {(row["step"], row["split"]) for row in rows}
    if len(places) > 1:
        raise ValueError(f"expected the rows of one evaluation, got (step, split) {sorted(places)}")
    step, split = next(iter(places), (None, None))
    modes = {mode: [row for row in rows if row["mode"] == mode] for mode in MODES}
    return {
        "schema": SCHEMA,
        "step": step,
        "split": split,
        "modes": {mode: of_mode(played, floors or {}) for mode, played in modes.items() if played},
    }


def of_mode(rows: Sequence[Row], floors: Mapping[str, float]) -> Summary:
    """All that is said of the trials of one mode. Shares and means leave broken trials out; those are counted apart."""
    kept = whole(rows)
    return {
        "overall": {**success(rows), "floor": None},
        "categories": {
            name: {**success([row for row in rows if row["category"] == name]), "floor": floors.get(name)}
            for name in CATEGORIES
        },
        "passes": passes(rows),
        "audit": audit(rows),
        "calls_in_error": per(total(kept, "failed_calls"), total(kept, "calls")),
        "malformed_turns": per(total(kept, "malformed"), total(kept, "turns")),
        "inexact_turns": per(sum(row.get("inexact", 0) for row in kept), total(kept, "turns")),
        "looping": per(total(kept, "looping"), len(kept)),
        "mean_reward": per(total(kept, "reward"), len(kept)),
        "mean_turns": per(total(kept, "turns"), len(kept)),
        "mean_tokens": per(total(kept, "tokens"), len(kept)),
        "endings": dict(sorted(Counter(str(row["ending"]) for row in kept).items())),
        "broken": {"trials": len(rows) - len(kept), "causes": causes(rows)},
    }


def success(rows: Sequence[Row]) -> Summary:
    """Counts, and the rate with its interval: by Wilson for one trial a task, clustered by task for several."""
    kept = whole(rows)
    return {
        "tasks": len(by_task(rows)),
        "trials": len(kept),
        "successes": successes(kept),
        "broken": len(rows) - len(kept),
        **rate(rows).plain(),
    }


def rate(rows: Sequence[Row]) -> Estimate:
    """The share of successes; every task counts the same."""
    c, n = successes_and_trials(rows)
    return wilson(sum(c), sum(n)) if max(n, default=0) <= 1 else clustered(c, n)


def passes(rows: Sequence[Row]) -> list[Summary]:
    """pass@k and pass^k for every k, over the tasks that have k trials (fewer where some broke: see `tasks`)."""
    c, n = successes_and_trials(rows)
    told: list[Summary] = []
    for k in range(1, max(n, default=0) + 1):
        fit = [(a, b) for a, b in zip(c, n, strict=True) if b >= k]
        some, trials = [a for a, _ in fit], [b for _, b in fit]
        at, hat = pass_at_k(some, trials, k), pass_hat_k(some, trials, k)
        told.append({"k": k, "tasks": len(fit), "pass_at": at, "pass_hat": hat})
    return told


def audit(rows: Sequence[Row]) -> dict[str, Summary]:
    """The zero-tool audit of the paper (section 3, appendix on evaluation), for training rollouts and trials alike.

    Of the successes on information tasks, the share that called no tool, and the mean number of calls; the same for
    action tasks. A policy that gives up its tools shows here while its rate of success still looks well.
    """
    return {category: audit_of(rows, category) for category in ("information", "action")}


def audit_of(rows: Sequence[Row], category: str) -> Summary:
    won = [row for row in whole(rows) if row["category"] == category and row["success"]]
    bare = sum(row["calls"] == 0 for row in won)
    return {
        "successes": len(won),
        "without_tool": bare,
        "without_tool_share": per(bare, len(won)),
        "tools_per_success": per(total(won, "calls"), len(won)),
    }


def causes(rows: Sequence[Row]) -> dict[str, int]:
    """How often each cause broke a trial, the most frequent first."""
    return dict(Counter(str(row["broken"]) for row in rows if row["broken"]).most_common())


def total(rows: Sequence[Row], key: str) -> float:
    return sum(row[key] for row in rows)


def per(amount: float, things: float) -> float | None:
    """None where there is not a single thing to have a share of."""
    return amount / things if things else None
