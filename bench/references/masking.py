"""Measures how many words are masked that are no literal's, and how long masking takes.

    python bench/references/masking.py FILE

FILE has recorded airline conversations as `tau_airline.py` reads them. The lab's worlds are played. A word of a trace
counts as masked for nothing when a literal is found there and no literal has the word: an upper bound, since `May` may
be a part of the literal 2024-05-15. The time is that of masking the messages of 24 conversations, the least of seven
rounds.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import process_time
from typing import Any

from tau_airline import READING_TOOLS, read_rollouts

from sgcd.contrast.leakage.literals import find_literals
from sgcd.contrast.leakage.masking import MIN_LITERAL_CHARS, Literals
from sgcd.contrast.leakage.matching import build_searchable_texts
from sgcd.contrast.trace import build_traces, render_trace
from sgcd.lab.policy import build_lab_chat
from sgcd.lab.reference_effect import play_with_references
from sgcd.lab.tasks import generate_tasks
from sgcd.learn.policy.load import load_policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import Group, Rollout

_STARTS = ("plain", "chatty", "chatty-shared")
_NUM_TASKS, _NUM_SIBLINGS, _NUM_TIMED, _NUM_ROUNDS = 32, 8, 24, 7
_WORD = re.compile(r"[^\W_]+")

Json = dict[str, Any]
Traced = tuple[str, Literals]
"""The text of a trace, unmasked, and the literals of its group."""


def main() -> int:
    rows: list[Json] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("| texts | words | masked | masked for nothing | share | the most frequent |\n|---|---|---|---|---|---|")
    for start in _STARTS:
        print(describe_words(f"lab, {start}", trace_lab(start)))
    print(describe_words("airline", trace_airline(rows)))
    print(f"\nseconds of masking: {time_masking(rows[:_NUM_TIMED]):.3f}")
    return 0


def describe_words(name: str, traced: Sequence[Traced]) -> str:
    """A line of the table."""
    num_words, masked, for_nothing = 0, 0, Counter[str]()
    for text, literals in traced:
        literal_words = {word for literal in literals.placeholders for word in _WORD.findall(literal)}
        is_masked = bytearray(len(text))
        for match in literals.find(text):
            is_masked[match.start : match.stop] = b"\1" * (match.stop - match.start)
        for word in _WORD.finditer(text):
            num_words += 1
            if any(is_masked[word.start() : word.end()]):
                masked += 1
                for_nothing += Counter({*[word[0].lower()]} - literal_words)
    share = 100 * for_nothing.total() / num_words
    frequent = ", ".join(f"{word} {number}" for word, number in for_nothing.most_common(5))
    return f"| {name} | {num_words:,} | {masked:,} | {for_nothing.total():,} | {share:.2f} % | {frequent or '-'} |"


def trace_lab(start: str) -> list[Traced]:
    """The traces of played held-out tasks of the start's world, with the literals of each task's siblings."""
    policy, tasks = load_policy(f"lab:{start}", "float32"), generate_tasks("dev")[:_NUM_TASKS]
    with ThreadPoolExecutor(1) as executor:
        sampler = TorchSampler(policy.model, policy.chat, SamplerSettings(slots=_NUM_TASKS * _NUM_SIBLINGS), executor)
        playing = play_with_references(
            tasks, [""] * len(tasks), _NUM_SIBLINGS, chat=policy.chat, sampler=sampler, seed=0
        )
        rollouts_by_task = asyncio.run(playing)
    return [
        traced
        for task, rollouts in zip(tasks, rollouts_by_task, strict=True)
        for traced in _trace(rollouts, find_literals(Group(task, tuple(rollouts)), policy.chat))
    ]


def trace_airline(rows: Sequence[Json]) -> list[Traced]:
    """The traces of recorded conversations, with the literals of each."""
    return [traced for row in rows for traced in _trace(read_rollouts([row]), read_literals(row))]


def _trace(rollouts: Sequence[Rollout], literals: Literals) -> list[Traced]:
    traces = build_traces(rollouts, Literals({}), build_lab_chat(), with_steps=False)
    return [(render_trace(trace), literals) for trace in traces]


def read_literals(row: Json) -> Literals:
    """The values of the user's record as a tool returned it, and of the calls that changed something."""
    values = list[str]()
    for message in row["traj"]:
        if message["role"] == "tool" and message.get("name") == "get_user_details":
            values += _read_values(message["content"])
        for call in message.get("tool_calls") or ():
            if not call["function"]["name"].startswith(READING_TOOLS):
                values += _read_values(call["function"]["arguments"])
    return Literals.from_texts(values, min_chars=MIN_LITERAL_CHARS)


def _read_values(text: str) -> Iterator[str]:
    """The texts and numbers of a JSON document; none when it is an error message."""
    try:
        waiting = [json.loads(text)]
    except ValueError:
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            yield str(value)


def time_masking(rows: Sequence[Json]) -> float:
    """CPU seconds of masking all messages of the conversations, each with its own literals."""
    texts = [[message["content"] or "" for message in row["traj"]] for row in rows]
    literals_of_rows, seconds = [read_literals(row) for row in rows], list[float]()
    for _ in range(_NUM_ROUNDS):
        build_searchable_texts.cache_clear()
        started = process_time()
        for literals, texts_of_row in zip(literals_of_rows, texts, strict=True):
            for text in texts_of_row:
                literals.mask(text)
        seconds.append(process_time() - started)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
