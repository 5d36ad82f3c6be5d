"""The rows of credit.jsonl, one a rollout: weights by token, by turn and by call; and which turns decide."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from sgcd.credit_records import CreditRecord
from sgcd.records import Floats, Group, Rollout, TokenKind, Turn
from sgcd.storage.atomic import SCHEMA, Row, to_json_line, writing
from sgcd.storage.run_folder import RunFolder

CREDIT_FILE = "credit.jsonl"


@dataclass(frozen=True, slots=True)
class DecidingTurn:
    """The turn of a rollout that has most of its weight above one."""

    sibling: int
    success: bool
    turn: int
    """From 1."""
    share: float
    """Of the rollout's weight above one."""
    act: str
    """What it calls, or the beginning of what it says."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """A mixed task in a few words."""

    task: str
    num_rollouts: int
    num_successes: int
    reference: str
    """Empty where there is none; `cause` says why."""
    cause: str
    deciding: tuple[DecidingTurn, ...]


def write_credit_rows(folder: RunFolder) -> list[TaskSummary]:
    """Write a row for each rollout of a finished folder, a batch at a time; returns its tasks in short."""
    path = folder.path / CREDIT_FILE
    new = path.with_name(f".{CREDIT_FILE}.new")
    summaries: list[TaskSummary] = []
    with writing(path):
        with new.open("wb") as file:
            for group, records, reference in iterate_groups(folder):
                for rollout in group.rollouts:
                    row = credit_row(group, rollout, records[rollout.name], reference)
                    file.write(to_json_line(row))
                summaries.append(summarise_task(group, records, reference))
        new.replace(path)
    return summaries


def iterate_groups(folder: RunFolder) -> Iterator[tuple[Group, Mapping[str, CreditRecord], Row]]:
    """All groups of a folder with their credit and the row of their reference."""
    for step in folder.steps_with_rollouts():
        records = folder.read_credit(step)
        references = {row["task"]: row for row in folder.read_references(step)}
        for stored in folder.read_rollouts(step):
            yield stored.group, records, references[stored.group.task.id]


def credit_row(group: Group, rollout: Rollout, record: CreditRecord, reference: Row) -> Row:
    """A rollout's credit as plain JSON; `weights` has one number for each of `token_ids`, which begin after the
    prompt."""
    weight = record.credit.weight
    places: Mapping[str, Any] = group.task.row.get("from", {})
    return {
        "schema": SCHEMA,
        "task": group.task.id,
        "sibling": rollout.sibling,
        "from": places.get(str(rollout.sibling)),
        "reward": rollout.reward,
        "success": rollout.success,
        "advantage": _round(record.credit.advantage),
        "reference": reference.get("text"),
        "no_reference": reference["cause"] or None,
        "turns": [_turn_row(rollout, number, turn, weight) for number, turn in enumerate(rollout.turns, start=1)],
        "token_ids": rollout.response.tolist(),
        "mask": rollout.response_mask.astype(int).tolist(),
        "weights": [_round(float(value)) for value in weight],
    }


def _turn_row(rollout: Rollout, number: int, turn: Turn, weight: Floats) -> Row:
    span = slice(turn.start, turn.stop)
    calls = zip(turn.calls, _call_spans(rollout, turn), strict=True)
    return {
        "turn": number,
        "start": turn.start,
        "stop": turn.stop,
        "weight": _mean(weight[span]),
        "share": _share(weight, span),
        "calls": [
            {"name": call.name, "weight": _mean(weight[of_call]), "share": _share(weight, of_call)}
            for call, of_call in calls
        ],
    }


def _call_spans(rollout: Rollout, turn: Turn) -> list[slice]:
    """The tokens of each call of a turn; of all of them, where the calls stand together."""
    kinds = [int(kind) for kind in rollout.token_kinds[turn.start : turn.stop]]
    runs: list[slice] = []
    place = turn.start
    for kind, run in groupby(kinds):
        start, place = place, place + len([*run])
        runs += [slice(start, place)] if kind == TokenKind.CALL else []
    if len(runs) == len(turn.calls):
        return runs
    together = slice(runs[0].start, runs[-1].stop) if runs else slice(turn.start, turn.stop)
    return [together] * len(turn.calls)


def summarise_task(group: Group, records: Mapping[str, CreditRecord], reference: Row) -> TaskSummary:
    """The deciding turn of each sibling whose weights differ, those with the largest shares first."""
    deciding = [turn for rollout in group.rollouts if (turn := find_deciding_turn(rollout, records[rollout.name]))]
    return TaskSummary(
        group.task.id,
        len(group.rollouts),
        sum(rollout.success for rollout in group.rollouts),
        str(reference.get("text", "")),
        str(reference["cause"]),
        tuple(sorted(deciding, key=lambda turn: -turn.share)),
    )


def find_deciding_turn(rollout: Rollout, record: CreditRecord) -> DecidingTurn | None:
    """None where every weight is one."""
    extra = np.maximum(record.credit.weight - 1, 0) * rollout.response_mask
    if not extra.sum():
        return None
    sums = [float(extra[turn.start : turn.stop].sum()) for turn in rollout.turns]
    best = int(np.argmax(sums))
    turn = rollout.turns[best]
    act = ", ".join(f"calls {call.name}" for call in turn.calls) or "says something"
    return DecidingTurn(rollout.sibling, rollout.success, best + 1, sums[best] / float(extra.sum()), act)


def _mean(values: Floats) -> float:
    return _round(float(values.mean())) if len(values) else 1.0


def _share(weight: Floats, span: slice) -> float:
    """The part of the rollout's weight above one that lies in a span."""
    extra = np.maximum(weight.astype(np.float64) - 1, 0)
    return _round(float(extra[span].sum() / extra.sum())) if extra.any() else 0.0


def _round(value: float) -> float:
    return float(f"{value:.4g}")
