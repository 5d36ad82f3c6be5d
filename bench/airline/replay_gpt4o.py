"""Replays recorded rollouts of tau-bench's airline tasks through our environment, and compares every tool's answer.

    python bench/airline/replay_gpt4o.py FILE [--folder .venv-airline] [--json]

FILE has the rollouts: a list of {task_id, reward, traj}. They were played on the first version of the benchmark, whose
tools and database were corrected since. Each call is made in the state that the calls before it left.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from sgcd.act.environments.airline.description import airline_process
from sgcd.act.environments.benchmark_process import BenchmarkProcess

Json = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(".venv-airline"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    process = airline_process(options.folder, "airline")
    found = asyncio.run(replay(json.loads(options.file.read_text(encoding="utf-8")), process))
    process.stop()
    total = found.total()
    for kind, count in found.most_common():
        print(f"{count:5} {100 * count / total:5.1f} %  {kind}")
    if options.json:
        print(json.dumps({"calls": total, "kinds": dict(found)}))
    return 0


async def replay(rollouts: list[Json], process: BenchmarkProcess) -> Counter[str]:
    """How often each kind of agreement or difference comes."""
    found = Counter[str]()
    for rollout in rollouts:
        episode = await process.open_episode()
        for call, recorded in recorded_calls(rollout["traj"]):
            reply = await episode.request("turn", text="", calls=[call])
            found[compare_answers(call["name"], recorded, reply["answers"][0])] += 1
        await episode.close()
    return found


def recorded_calls(messages: list[Json]) -> Iterator[tuple[Json, str]]:
    """Each call with the tool's answer, which is the message after it; ids are not unique in the records."""
    for message, answer in pairwise(messages):
        if message.get("tool_calls"):
            function = message["tool_calls"][0]["function"]
            yield {"name": function["name"], "arguments": json.loads(function["arguments"])}, answer["content"]


def compare_answers(tool: str, recorded: str, answer: Json) -> str:
    """The kind of agreement, or why two answers differ."""
    if tool == "think":
        return "differs: the tool think was removed"
    ours = answer["content"]
    if recorded == ours:
        return "agrees: to the letter"
    if answer["is_error"] or recorded.startswith("Error"):
        if recorded.casefold() == ours.casefold():
            return "agrees: an error, in other capitals"
        both = answer["is_error"] and recorded.startswith("Error")
        who = "with another reason in each" if both else "here alone" if answer["is_error"] else "in the record alone"
        return f"differs: an error {who}, {tool}"
    first, second = parse(recorded), parse(ours)
    if first == second:
        return "agrees: other order, or fields that are null"
    if tool == "get_user_details" and as_first_version(second) == first:
        return "agrees: but for user_id, and state for province"
    if isinstance(second, dict) and {**first, "cabin": ""} == {**second, "cabin": ""}:
        return "differs: a change of cabin was answered and not written (corrected since)"
    return f"differs: {tool}"


def parse(text: str) -> Any:
    """The JSON value without fields that are null."""

    def without_null(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_null(part) for key, part in value.items() if part is not None}
        return [without_null(part) for part in value] if isinstance(value, list) else value

    try:
        return without_null(json.loads(text))
    except ValueError:
        return text


def as_first_version(user: Json) -> Json:
    address = {"province" if key == "state" else key: value for key, value in user["address"].items()}
    return {key: value for key, value in user.items() if key != "user_id"} | {"address": address}


if __name__ == "__main__":
    raise SystemExit(main())
