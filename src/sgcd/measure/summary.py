"""Summary of an evaluation: rates with intervals, overall and per category, and the use of tools."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgcd.measure.statistics import Estimate, clustered_interval, pass_at_k, pass_hat_k, wilson_interval
from sgcd.measure.trial_rows import (
    MODES,
    TrialRow,
    count_successes,
    count_successes_and_trials,
    group_by_task,
    unbroken,
)
from sgcd.measure.validity import describe_commonest_cause
from sgcd.records import CATEGORIES, TOOL_CATEGORIES
from sgcd.storage.atomic import SCHEMA

Summary = dict[str, Any]


def summarise_evaluation(rows: Sequence[TrialRow]) -> Summary:
    """One evaluation: {"schema", "step", "split", "modes": {"greedy": ..., "sampled": ...}}, modes that were played."""
    steps_and_splits = {(row["step"], row["split"]) for row in rows}
    if len(steps_and_splits) > 1:
        raise ValueError(f"expected the rows of one evaluation, got (step, split) {sorted(steps_and_splits)}")
    step, split = next(iter(steps_and_splits), (None, None))
    rows_by_mode = {mode: [row for row in rows if row["mode"] == mode] for mode in MODES}
    return {
        "schema": SCHEMA,
        "step": step,
        "split": split,
        "modes": {mode: summarise_mode(mode_rows) for mode, mode_rows in rows_by_mode.items() if mode_rows},
    }


def summarise_mode(rows: Sequence[TrialRow]) -> Summary:
    """Summarise the trials of one mode. Shares and means leave broken trials out; those are counted apart."""
    unbroken_rows = unbroken(rows)
    return {
        "overall": summarise_success(rows),
        "categories": {
            name: summarise_success([row for row in rows if row["category"] == name])
            for name in list_categories(row["category"] for row in rows)
        },
        **summarise_scenarios(rows),
        "passes": summarise_passes(rows),
        "audit": audit_tool_use(rows),
        "calls_in_error": divide_or_none(sum_column(unbroken_rows, "failed_calls"), sum_column(unbroken_rows, "calls")),
        "malformed_turns": divide_or_none(sum_column(unbroken_rows, "malformed"), sum_column(unbroken_rows, "turns")),
        "inexact_turns": divide_or_none(
            sum(row.get("inexact", 0) for row in unbroken_rows), sum_column(unbroken_rows, "turns")
        ),
        "looping": divide_or_none(sum_column(unbroken_rows, "looping"), len(unbroken_rows)),
        "mean_reward": divide_or_none(sum_column(unbroken_rows, "reward"), len(unbroken_rows)),
        "mean_turns": divide_or_none(sum_column(unbroken_rows, "turns"), len(unbroken_rows)),
        "mean_tokens": divide_or_none(sum_column(unbroken_rows, "tokens"), len(unbroken_rows)),
        "endings": dict(sorted(Counter(str(row["ending"]) for row in unbroken_rows).items())),
        "broken": {
            "trials": len(rows) - len(unbroken_rows),
            "sources": count_sources(rows),
            "causes": count_causes(rows),
        },
    }


def summarise_success(rows: Sequence[TrialRow]) -> Summary:
    """Counts, and the rate with its interval: by Wilson for one trial a task, clustered by task for several.

    `floor` is the mean reward of an agent that does nothing; None where an environment does not know it.
    """
    unbroken_rows = unbroken(rows)
    floors = [trials[0]["floor"] for trials in group_by_task(rows).values() if "floor" in trials[0]]
    return {
        "tasks": len(group_by_task(rows)),
        "trials": len(unbroken_rows),
        "successes": count_successes(unbroken_rows),
        "broken": len(rows) - len(unbroken_rows),
        **success_rate(rows).to_json(),
        "floor": divide_or_none(sum(floors), len(floors)) if len(floors) == len(group_by_task(rows)) else None,
    }


def summarise_scenarios(rows: Sequence[TrialRow]) -> Summary:
    """Where tasks belong to scenarios, those of which every task succeeded in the same trial; AppWorld's SGC and TGC.

    A scenario with a broken trial is counted as broken. `tests_passed` is the mean share of the verifier's tests.
    """
    tests = [row["tests_passed"] / row["tests"] for row in unbroken(rows) if row.get("tests")]
    shares = {"tests_passed": sum(tests) / len(tests)} if tests else {}
    played: dict[tuple[str, int], list[TrialRow]] = {}
    for row in rows:
        if "scenario" in row:
            played.setdefault((row["scenario"], row["trial"]), []).append(row)
    if not played:
        return shares
    scenario_rows = [
        {
            "task": scenario,
            "trial": trial,
            "success": all(row["success"] for row in tasks),
            "broken": next((row["broken"] for row in tasks if row["broken"]), ""),
        }
        for (scenario, trial), tasks in played.items()
    ]
    return {"scenarios": summarise_success(scenario_rows), **shares}


def success_rate(rows: Sequence[TrialRow]) -> Estimate:
    """The share of successes; every task counts the same."""
    c, n = count_successes_and_trials(rows)
    return wilson_interval(sum(c), sum(n)) if max(n, default=0) <= 1 else clustered_interval(c, n)


def summarise_passes(rows: Sequence[TrialRow]) -> list[Summary]:
    """pass@k and pass^k for every k, over the tasks that have k trials (fewer where some broke: see `tasks`)."""
    c, n = count_successes_and_trials(rows)
    result: list[Summary] = []
    for k in range(1, max(n, default=0) + 1):
        counts = [(a, b) for a, b in zip(c, n, strict=True) if b >= k]
        task_successes, task_trials = [a for a, _ in counts], [b for _, b in counts]
        pass_at, pass_hat = pass_at_k(task_successes, task_trials, k), pass_hat_k(task_successes, task_trials, k)
        result.append({"k": k, "tasks": len(counts), "pass_at": pass_at, "pass_hat": pass_hat})
    return result


def audit_tool_use(rows: Sequence[TrialRow]) -> dict[str, Summary]:
    """The zero-tool audit of the paper (section 3, appendix on evaluation), for training rollouts and trials alike.

    For each category in which a success needs a tool: of the successes, the share that called none, and the mean
    number of calls. A policy that gives up its tools shows here while its rate of success still looks well.
    """
    names = list_categories(row["category"] for row in rows if _needs_tool(row))
    audited = {row["category"] for row in rows if _needs_tool(row)}
    return {category: audit_category(rows, category) for category in names if category in audited}


def list_categories(found: Iterable[str]) -> list[str]:
    """The categories of every environment, then those that an environment declared, by name."""
    return [*CATEGORIES, *sorted({*found} - {*CATEGORIES})]


def _needs_tool(row: TrialRow) -> bool:
    """Earlier versions wrote no such column."""
    needs_tool = row.get("needs_tool")
    return row["category"] in TOOL_CATEGORIES if needs_tool is None else bool(needs_tool)


def audit_category(rows: Sequence[TrialRow], category: str) -> Summary:
    won_rows = [row for row in unbroken(rows) if row["category"] == category and row["success"]]
    num_without_tool = sum(row["calls"] == 0 for row in won_rows)
    return {
        "successes": len(won_rows),
        "without_tool": num_without_tool,
        "without_tool_share": divide_or_none(num_without_tool, len(won_rows)),
        "tools_per_success": divide_or_none(sum_column(won_rows, "calls"), len(won_rows)),
    }


def count_causes(rows: Sequence[TrialRow]) -> dict[str, int]:
    """How often each cause broke a trial, the most frequent first."""
    return dict(Counter(str(row["broken"]) for row in rows if row["broken"]).most_common())


def count_sources(rows: Sequence[TrialRow]) -> dict[str, int]:
    """How many trials the model, the simulated user and the environment broke; those that broke none are left out."""
    sources = Counter(str(row["broken"]).partition(":")[0] for row in rows if row["broken"])
    by_endpoint = {name: sources.pop(name) for name in ("model", "user") if name in sources}
    return by_endpoint | ({"environment": sources.total()} if sources else {})


def is_all_broken(summary: Mapping[str, Any]) -> bool:
    """Trials were played, and every one of them broke."""
    modes = summary["modes"].values()
    return bool(modes) and not any(mode["overall"]["trials"] for mode in modes)


def unmeasured_reason(summary: Mapping[str, Any]) -> str:
    """Why an evaluation measured nothing, with the commonest cause where all its trials broke; empty otherwise."""
    if not is_all_broken(summary):
        return ""
    causes = Counter[str]()
    for mode in summary["modes"].values():
        causes.update(mode["broken"]["causes"])
    num_broken = sum(mode["broken"]["trials"] for mode in summary["modes"].values())
    return (
        f"evaluation: all {num_broken} trials of {summary['split']} tasks broke, {describe_commonest_cause(causes)}"
        "; expected at least one that came to its end; mend that and evaluate again"
    )


def sum_column(rows: Sequence[TrialRow], key: str) -> float:
    return sum(row[key] for row in rows)


def divide_or_none(amount: float, count: float) -> float | None:
    """None when `count` is zero."""
    return amount / count if count else None
