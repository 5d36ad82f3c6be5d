"""Measures on recorded rollouts with known gold actions whether a reference names what a failure did wrong.

    python bench/references/tau_airline.py FILE

FILE has the rollouts of tau-bench's airline tasks: a list of {task_id, reward, info, traj}. Of each task whose outcomes
are mixed, the built-in writer's points of deviation are compared with the calls and arguments in which the failures
differ from the task's gold actions. The same points are also compared with the differences of all other tasks.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.trace import build_traces
from sgcd.contrast.writers.built_in import Point, find_points
from sgcd.lab.policy import build_lab_chat
from sgcd.records import Call, Rollout, Turn, Verdict

READING_TOOLS = ("get_", "list_", "search_", "calculate", "think")
"""What the names of tools begin with that change nothing."""
_NUM_RESAMPLES = 10_000

Json = dict[str, Any]
Difference = tuple[str, str]
"""A tool and one of its arguments; without an argument, the call itself."""
Hit = Callable[[Sequence[Point], set[Difference]], bool]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    rows_by_task = defaultdict[int, list[Json]](list)
    for row in json.loads(parser.parse_args().file.read_text(encoding="utf-8")):
        rows_by_task[row["task_id"]].append(row)
    mixed = [rows for rows in rows_by_task.values() if len({row["reward"] == 1 for row in rows}) == 2]
    points = [find_points(build_traces(read_rollouts(rows), Literals({}), build_lab_chat())) for rows in mixed]
    differences = [find_differences(rows) for rows in mixed]
    both_sides = sum(
        not {point.right for point in of_task}.isdisjoint(point.wrong for point in of_task) for of_task in points
    )
    print(
        f"{len(mixed)} mixed tasks, {sum(map(bool, points))} with a reference, {both_sides} name an act on both sides"
    )
    for name, is_hit in (("first point", names_first), ("any point", names_any)):
        print(name, describe_hits(points, differences, is_hit))
    return 0


def names_first(points: Sequence[Point], differences: set[Difference]) -> bool:
    return names_any(points[:1], differences)


def names_any(points: Sequence[Point], differences: set[Difference]) -> bool:
    """Whether a point names an argument, or else a call, in which failures differ from the gold actions."""
    return any(
        (act.tool, act.argument.partition(" ")[0]) in differences
        if act.argument
        else act.tool in {tool for tool, _ in differences}
        for point in points
        for act in (point.right, point.wrong)
        if act and act.tool
    )


def describe_hits(points: Sequence[Sequence[Point]], differences: Sequence[set[Difference]], is_hit: Hit) -> str:
    """Tasks whose own points hit, the share that those of other tasks hit, and 95 % intervals over tasks."""
    own = np.array([is_hit(*pair) for pair in zip(points, differences, strict=True)], float)
    other = np.array(
        [
            np.mean([is_hit(of_other, of_task) for j, of_other in enumerate(points) if j != i])
            for i, of_task in enumerate(differences)
        ]
    )
    parts = [f"{int(own.sum())} of {len(own)}"]
    for name, values in (("own", own), ("other tasks'", other), ("difference", own - other)):
        resampled = np.random.default_rng(0).choice(values, (_NUM_RESAMPLES, len(values))).mean(axis=1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        parts.append(f"{name} {values.mean():.2f} [{low:.2f}, {high:.2f}]")
    return ", ".join(parts)


def find_differences(rows: Sequence[Json]) -> set[Difference]:
    """The calls and arguments in which any failure differs from the gold actions; extra reading counts for nothing."""
    return {
        difference
        for row in rows
        if row["reward"] != 1
        for difference in _differences_of_row(row["info"]["task"]["actions"], _read_calls(row["traj"]))
    }


def _differences_of_row(gold: Sequence[Json], calls: Sequence[Call]) -> set[Difference]:
    found: set[Difference] = set()
    remaining = [call for call in calls if not call.is_error]
    for action in gold:
        same_tool = [call for call in remaining if call.name == action["name"]]
        if not same_tool:
            found.add((action["name"], ""))
            continue
        arguments: Json = action["kwargs"]
        nearest = max(same_tool, key=lambda call: sum(call.arguments.get(key) == arguments[key] for key in arguments))
        remaining.remove(nearest)
        names = {*arguments, *nearest.arguments}
        found |= {(action["name"], name) for name in names if arguments.get(name) != nearest.arguments.get(name)}
    return found | {(call.name, "") for call in remaining if not call.name.startswith(READING_TOOLS)}


def read_rollouts(rows: Sequence[Json]) -> list[Rollout]:
    """The recorded rollouts of a task, without tokens."""
    return [_read_rollout(row, sibling) for sibling, row in enumerate(rows)]


def _read_rollout(row: Json, sibling: int) -> Rollout:
    messages = [{**message, "content": message["content"] or ""} for message in row["traj"]]
    calls = iter(_read_calls(messages))
    turns = [
        Turn(0, 0, tuple(next(calls) for _ in message.get("tool_calls") or ()), text=message["content"])
        for message in messages
        if message["role"] == "assistant"
    ]
    ids, no_floats, no_flags = np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.bool_)
    is_success = row["reward"] == 1
    return Rollout(
        task=str(row["task_id"]), category="action", sibling=sibling, seed=sibling, prompt=ids, reference_position=0,
        response=ids, response_mask=no_flags, token_kinds=np.zeros(0, np.uint8), sampling_logprobs=no_floats,
        turns=tuple(turns), messages=tuple(messages), tools=(), end_reason="answered",
        verdict=Verdict(float(row["reward"]), is_success),
    )  # fmt: skip


def _read_calls(messages: Sequence[Json]) -> list[Call]:
    replies = {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}
    return [
        Call(
            call["function"]["name"],
            json.loads(call["function"]["arguments"]),
            is_error=replies.get(call["id"], "").startswith("Error"),
        )
        for message in messages
        for call in message.get("tool_calls") or ()
    ]


if __name__ == "__main__":
    sys.exit(main())
