"""The long desk: its words, its rule, its tasks, and its environment, which judges every request by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import InitialMessages, Reply, TaskSuite
from sgcd.lab.settings import LongDeskSettings
from sgcd.records import Flags, ParsedTurn, Task, Verdict

VERBS = ("cancel", "move", "upgrade", "refund", "seat", "insure")
ITEMS = ("saver", "basic", "light", "classic", "flex", "premium", "business", "coach")
FACTS = ("sick", "late", "lost", "double", "strike", "storm", "early", "mistake")
ACTS = tuple(f"{verb}_trip" for verb in VERBS)
REFUSE = "refuse"
DECISIONS = (*ACTS, REFUSE)
"""The words that decide. Thinking is drawn from them too, so that both share every parameter."""
LINE_LENGTH = 16
"""Words of thinking behind a number."""
NUMBERS = tuple(f"n{number}" for number in range(1, 17))
DESK_TEXT = "desk"
"""The system message. The rule is written down nowhere."""
DESK_TASK_PREFIX = "desk-"
_SPLIT_SIZES = {"train": 2000, "dev": 400, "test": 400}
_SPLIT_SEEDS = {"train": 1, "dev": 2, "test": 3}


@dataclass(frozen=True, slots=True)
class DeskRequest:
    """One request: what is wanted, for which item, and the fact that decides.

    >>> DeskRequest("cancel", "flex", "storm").text
    'cancel flex storm'
    """

    verb: str
    item: str
    fact: str
    number: str = ""
    """Where the word stands that the call must repeat; empty where nothing is repeated."""

    @property
    def text(self) -> str:
        return f"{self.verb} {self.item} {self.fact} {self.number}".rstrip()

    @property
    def right_tool(self) -> str:
        """The tool of the verb where the rule allows it, else a refusal."""
        return f"{self.verb}_trip" if allows(self) else REFUSE


@lru_cache(maxsize=1)
def rule_table() -> Flags:
    """[items, facts]: what is allowed. Every item is allowed with half of the facts, drawn at random once."""
    rng = np.random.Generator(np.random.Philox(key=7))
    return np.stack([rng.permutation(len(FACTS)) < len(FACTS) // 2 for _ in ITEMS])


def allows(request: DeskRequest) -> bool:
    """The rule. It depends on item and fact alone."""
    return bool(rule_table()[ITEMS.index(request.item), FACTS.index(request.fact)])


def desk_requests(task: Task) -> tuple[DeskRequest, ...]:
    return tuple(DeskRequest(**values) for values in task.row["requests"])


class LongDesk:
    """One play of one task. Too little or too much thinking fails its request, so that thinking less gains nothing."""

    def __init__(self, settings: LongDeskSettings) -> None:
        self.settings = settings
        self.requests: tuple[DeskRequest, ...] = ()
        self.is_right: list[bool] = []
        self.is_thought: list[bool] = []

    async def open(self, task: Task, seed: int) -> InitialMessages:
        self.requests = desk_requests(task)
        messages = ({"role": "system", "content": DESK_TEXT}, {"role": "user", "content": self.requests[0].text})
        return InitialMessages(messages, desk_tools(self.settings.read))

    async def reply(self, turn: ParsedTurn) -> Reply:
        """Judge the request and go on with the next one, whatever was done."""
        request = self.requests[len(self.is_right)]
        thinking = turn.thinking.split()
        self.is_thought.append(is_thinking_enough(thinking, self.settings.thinking))
        arguments = {"item": request.item}
        if request.number:
            arguments["word"] = word_behind(thinking, request.number)
        is_call_right = [(call.name, dict(call.arguments)) for call in turn.calls] == [(request.right_tool, arguments)]
        self.is_right.append(is_call_right and self.is_thought[-1])
        if len(self.is_right) == len(self.requests):
            return Reply(done=True)
        results = tuple({"role": "tool", "content": "done"} for _ in turn.calls)
        return Reply((*results, {"role": "user", "content": self.requests[len(self.is_right)].text}))

    async def verify(self) -> Verdict:
        """Success is one only where all requests are right; each request's own verdict is a part of the facts."""
        success = len(self.is_right) == len(self.requests) and all(self.is_right)
        parts = [{"reward": float(is_right), "turns": 1} for is_right in self.is_right]
        return Verdict(float(success), success, {"parts": parts, "thought": all(self.is_thought)})

    def private(self) -> tuple[str, ...]:
        return ()

    async def close(self) -> None: ...


def is_thinking_enough(thinking: Sequence[str], num_words: int) -> bool:
    """As many words that decide as are wanted, give or take a quarter, in whatever form."""
    return abs(sum(word in DECISIONS for word in thinking) - num_words) <= num_words // 4


def word_behind(thinking: Sequence[str], number: str) -> str:
    """The word behind a number, or nothing."""
    place = thinking.index(number) + 1 if number in thinking else len(thinking)
    return thinking[place] if place < len(thinking) else ""


@lru_cache(maxsize=2)
def desk_tools(read: bool) -> tuple[Mapping[str, Any], ...]:
    arguments = ("item", "word") if read else ("item",)
    parameters = {"type": "object", "properties": {name: {"type": "string"} for name in arguments}}
    parameters["required"] = [*arguments]
    return tuple({"type": "function", "function": {"name": name, "parameters": parameters}} for name in DECISIONS)


def build_long_desk_task_suite(settings: LongDeskSettings) -> TaskSuite:
    """Three splits of tasks. They share every cell of the rule, but no conversation."""
    splits = {split: generate_desk_tasks(split, settings) for split in _SPLIT_SIZES}
    return TaskSuite(lambda: LongDesk(settings), splits)


def generate_desk_tasks(split: str, settings: LongDeskSettings) -> tuple[Task, ...]:
    """The tasks of a split, equal on every machine."""
    rng = np.random.Generator(np.random.Philox(key=_SPLIT_SEEDS[split] * 1000 + settings.requests))
    tasks: list[Task] = []
    while len(tasks) < _SPLIT_SIZES[split]:
        requests = draw_requests(rng, settings)
        if _assign_desk_split(requests) == split:
            row = {"requests": [asdict(request) for request in requests]}
            tasks.append(Task(f"{DESK_TASK_PREFIX}{split}-{len(tasks):04d}", "action", row))
    return tuple(tasks)


def draw_requests(rng: np.random.Generator, settings: LongDeskSettings) -> list[DeskRequest]:
    """The requests of one conversation, drawn until acting always and refusing always both fail."""
    while True:
        draws: NDArray[np.int64] = rng.integers(
            (len(VERBS), len(ITEMS), len(FACTS), max(1, settings.thinking // LINE_LENGTH)), size=(settings.requests, 4)
        )
        requests = [
            DeskRequest(VERBS[verb], ITEMS[item], FACTS[fact], NUMBERS[number] if settings.read else "")
            for verb, item, fact, number in draws.tolist()
        ]
        if len({allows(request) for request in requests}) == min(2, len(requests)):
            return requests


def _assign_desk_split(requests: Sequence[DeskRequest]) -> str:
    """The split of a conversation: it depends on its requests alone. Train has four of six buckets."""
    digest = sha256("/".join(request.text for request in requests).encode()).digest()
    return ("dev", "test", *["train"] * 4)[int.from_bytes(digest[:4], "big") % 6]
