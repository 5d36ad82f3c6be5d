"""The rows of an evaluation, one per trial, and how to select and group them."""

from collections.abc import Iterable, Sequence
from typing import Any

TrialRow = dict[str, Any]
"""One trial, as JSON.

Which trial: schema, seed (the run's), step, split, mode (greedy or sampled), temperature, task, category, needs_tool
(whether a success without a call counts in the audit; absent in rows of earlier versions), trial.
How it ended: success, reward, broken (the cause, else empty), calls, failed_calls, malformed (turns whose call could
not be read), inexact (turns whose ids are not those that the tokenizer makes of their text), looping, turns, tokens
(sampled by the policy), tokens_read (of the prompt and the replies, each once; absent in rows of earlier versions),
ending. Where an environment has them: floor, scenario, and of the verifier's tests their
number (tests) and how many passed (tests_passed). A row of a chat model behind an endpoint also has its name (model),
its tokens are those that the server counts, and tokens_read is the sum over its requests, each of which has the whole
conversation so far."""

TrialKey = tuple[str, str, int]
"""Mode, task and number of a trial: within an evaluation they name it."""

CONVERSATIONS_FILE = "talks.jsonl"
"""In the folder of an evaluation: each trial's conversation and row."""
MODES = ("greedy", "sampled")


def select_evaluation(rows: Sequence[TrialRow], split: str | None = None, step: int | None = None) -> list[TrialRow]:
    """The rows of one split at one step (by default the latest); the later row of a trial that was played twice."""
    split = split or next((row["split"] for row in reversed(rows)), None)
    rows = [row for row in rows if row["split"] == split]
    step = max((row["step"] for row in rows), default=0) if step is None else step
    return list({trial_key(row): row for row in rows if row["step"] == step}.values())


def trial_key(row: TrialRow) -> TrialKey:
    return str(row["mode"]), str(row["task"]), int(row["trial"])


def unbroken(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """The rows without broken trials, which say nothing about the policy."""
    return [row for row in rows if not row["broken"]]


def group_by_task(rows: Iterable[TrialRow]) -> dict[str, list[TrialRow]]:
    """The rows of each task, sorted by task id."""
    tasks: dict[str, list[TrialRow]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row)
    return dict(sorted(tasks.items()))


def count_successes_and_trials(rows: Iterable[TrialRow]) -> tuple[list[int], list[int]]:
    """Per task the number of successes and of unbroken trials (0 where every trial broke)."""
    tasks = [unbroken(trials) for trials in group_by_task(rows).values()]
    return [count_successes(trials) for trials in tasks], [len(trials) for trials in tasks]


def count_successes(rows: Sequence[TrialRow]) -> int:
    return sum(bool(row["success"]) for row in rows)
