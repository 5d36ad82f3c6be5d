"""The rows of an evaluation, one for each trial, and how they are gathered by task."""

from collections.abc import Iterable, Sequence
from typing import Any

TrialRow = dict[str, Any]
"""One trial, as JSON.

Where it stands: schema, seed (the run's), step, split, mode (greedy or sampled), temperature, task, category, trial.
What came of it: success, reward, broken (the cause, else empty), calls, failed_calls, malformed (turns whose call could
not be read), inexact (turns whose ids are not those that the tokenizer makes of their text), looping, turns, tokens
(that the policy wrote), ending. A row of a model that is no policy has its name, too (model), and tokens as its server
counts them."""

MODES = ("greedy", "sampled")


def select_evaluation(rows: Sequence[TrialRow], split: str | None = None, step: int | None = None) -> list[TrialRow]:
    """The rows of one split at one step, the latest unless told; of a trial that was played twice, the later one."""
    split = split or next((row["split"] for row in reversed(rows)), None)
    rows = [row for row in rows if row["split"] == split]
    step = max((row["step"] for row in rows), default=0) if step is None else step
    return list({(row["mode"], row["task"], row["trial"]): row for row in rows if row["step"] == step}.values())


def unbroken(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """Without the trials that the machinery broke: only these say something of the policy."""
    return [row for row in rows if not row["broken"]]


def group_by_task(rows: Iterable[TrialRow]) -> dict[str, list[TrialRow]]:
    """The rows of each task, tasks in order of their ids."""
    tasks: dict[str, list[TrialRow]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row)
    return dict(sorted(tasks.items()))


def count_successes_and_trials(rows: Iterable[TrialRow]) -> tuple[list[int], list[int]]:
    """(c, n) of each task over the trials that were not broken; a task whose every trial broke has n = 0."""
    tasks = [unbroken(trials) for trials in group_by_task(rows).values()]
    return [count_successes(trials) for trials in tasks], [len(trials) for trials in tasks]


def count_successes(rows: Sequence[TrialRow]) -> int:
    return sum(bool(row["success"]) for row in rows)
