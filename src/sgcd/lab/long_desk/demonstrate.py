"""Demonstrations at the long desk: decisions with errors, thinking at random, references in some prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import InitialMessages
from sgcd.chat import Chat
from sgcd.contrast.insert import encode_reference, write_neutral_text
from sgcd.contrast.trace import swap_outcomes
from sgcd.contrast.writers import WriterFailed
from sgcd.contrast.writers.built_in import compose_reference
from sgcd.lab import words
from sgcd.lab.demonstrate import Demonstration, trace_demonstrations
from sgcd.lab.long_desk.world import (
    DECISIONS,
    DESK_TEXT,
    FACTS,
    ITEMS,
    LINE_LENGTH,
    NUMBERS,
    REFUSE,
    VERBS,
    DeskRequest,
    allows,
    desk_tools,
    draw_requests,
    rule_table,
)
from sgcd.lab.policy import build_lab_tokenizer
from sgcd.lab.settings import LongDeskSettings
from sgcd.records import Call, Task, Verdict

_WRONG_SHARE = 0.3
_ERROR_RATES = (0.12, 0.62)
"""How often demonstrations decide wrongly: in most cells of the rule, and in those that they have wrong."""
_CAREFUL_RATE = 0.04
"""The same under a reference of siblings: such a demonstration does what successes did."""
_NUM_SIBLINGS = 4
_SHARES = {"own": 0.3, "swapped": 0.1, "shuffled": 0.1, "neutral": 0.05}
"""Shares of the demonstrations by kind of reference; the others have none. Under a swapped one, success and failure
exchanged, a demonstration does what a failed sibling did; under another task's and under a text that says nothing, what
it does without one."""
OTHER_TOKEN, THINKING_TOKEN, DECISION_TOKEN, REST_TOKEN = range(4)
Words = list[tuple[str, int]]
"""Words with the kind of each."""


def build_desk_chat() -> Chat:
    frame = "done trip item word tools :".split()
    texts = (words.HARNESS_WORDS, words.REFERENCE_WORDS, write_neutral_text("word " * 40).lower())
    vocabulary = [
        *words.SPECIAL_TOKENS, DESK_TEXT, *frame, *DECISIONS, *VERBS, *ITEMS, *FACTS, *NUMBERS,
        *(word.strip(",.") for text in texts for word in text.split()), ",", ".",
    ]  # fmt: skip
    return Chat(build_lab_tokenizer(list(dict.fromkeys(vocabulary))), "the long desk's tokenizer")


def error_rates(seed: int) -> NDArray[np.float64]:
    """[items, facts]: how often demonstrations decide wrongly. As many allowed cells as forbidden ones of an item are
    systematically wrong."""
    rng = np.random.Generator(np.random.Philox(key=seed + 100))
    rule, rates = rule_table(), np.full((len(ITEMS), len(FACTS)), _ERROR_RATES[0])
    num_wrong = round(_WRONG_SHARE * rule.size / 2)
    counts = np.full(len(ITEMS), num_wrong // len(ITEMS))
    counts[rng.permutation(len(ITEMS))[: num_wrong % len(ITEMS)]] += 1
    for item, count in enumerate(counts.tolist()):
        for side in (True, False):
            rates[item, rng.permutation(np.flatnonzero(rule[item] == side))[:count]] = _ERROR_RATES[1]
    return rates


def decide_with_errors(request: DeskRequest, rates: NDArray[np.float64], rng: np.random.Generator) -> str:
    """The tool that a demonstration calls."""
    is_wrong = rng.random() < rates[ITEMS.index(request.item), FACTS.index(request.fact)]
    return f"{request.verb}_trip" if allows(request) != is_wrong else REFUSE


def draw_thinking(num_words: int, rng: np.random.Generator) -> list[str]:
    """Numbers, and words that decide behind them, drawn at random."""
    drawn = [DECISIONS[index] for index in rng.integers(len(DECISIONS), size=num_words).tolist()]
    lines = [drawn[start : start + LINE_LENGTH] for start in range(0, num_words, LINE_LENGTH)]
    return [word for number, line in zip(NUMBERS, lines, strict=False) for word in (number, *line)]


def write_desk_turn(request: DeskRequest, tool: str, thinking: Sequence[str]) -> Words:
    """The words of a turn, each with its kind."""
    thoughts = [(word, THINKING_TOKEN if word in DECISIONS else REST_TOKEN) for word in thinking]
    turn = [("<think>", REST_TOKEN), *thoughts, ("</think>", REST_TOKEN)] if thinking else []
    repeated = ["word", thinking[[*thinking].index(request.number) + 1]] if request.number else []
    turn += [("<call>", REST_TOKEN), (tool, DECISION_TOKEN)]
    return turn + [(word, REST_TOKEN) for word in ("item", request.item, *repeated, "</call>", "<|end|>")]


def write_demonstration(
    requests: Sequence[DeskRequest], turns: Sequence[Words], read: bool, reference: Sequence[str] = ()
) -> Words:
    """The words of a whole conversation, each with its kind, as the template renders it.

    The words of a reference go where a teacher reads them, before the end of the first request.
    """
    schemas = [tool["function"] for tool in desk_tools(read)]
    tools = [f"{schema['name']} {' '.join(schema['parameters']['properties'])} ," for schema in schemas]
    written = [(word, OTHER_TOKEN) for word in f"<|system|> {DESK_TEXT} tools : {' '.join(tools)} <|end|>".split()]
    for number, (request, turn) in enumerate(zip(requests, turns, strict=True)):
        result = "<|tool|> done <|end|> " if number else ""
        inserted = "" if number else " ".join(["", *reference])
        glue = f"{result}<|user|> {request.text}{inserted} <|end|> <|assistant|>"
        written += [*((word, OTHER_TOKEN) for word in glue.split()), *turn]
    return written


@dataclass
class DemonstrationStream:
    """Draws demonstrations of one world, with the errors of one start."""

    world: LongDeskSettings
    rates: NDArray[np.float64]
    chat: Chat
    rng: np.random.Generator
    last_reference: str = ""

    def draw(self) -> Words:
        """A demonstration, perhaps with a reference in its prompt."""
        requests = draw_requests(self.rng, self.world)
        kind = str(self.rng.choice([*_SHARES, ""], p=[*_SHARES.values(), 1 - sum(_SHARES.values())]))
        reference, tools = self.last_reference, self.decide(requests)
        if kind in ("own", "swapped"):
            requests, reference, tools = self.draw_with_reference(kind == "swapped")
            self.last_reference = reference
        elif kind == "neutral":
            reference = write_neutral_text(reference)
        elif not kind:
            reference = ""
        written = self.chat.decode(encode_reference(self.chat, reference)).split() if reference else []
        turns = [
            write_desk_turn(request, tool, draw_thinking(self.world.thinking, self.rng))
            for request, tool in zip(requests, tools, strict=True)
        ]
        return write_demonstration(requests, turns, self.world.read, written)

    def decide(self, requests: Sequence[DeskRequest]) -> list[str]:
        return [decide_with_errors(request, self.rates, self.rng) for request in requests]

    def draw_with_reference(self, is_swapped: bool) -> tuple[list[DeskRequest], str, list[str]]:
        """Requests whose siblings a reference parts, the reference, and what a demonstration that follows it calls."""
        while True:
            requests = draw_requests(self.rng, self.world)
            siblings = [self.decide(requests) for _ in range(_NUM_SIBLINGS)]
            reference = contrast_desk_siblings(requests, siblings, is_swapped=is_swapped)
            if reference:
                break
        if is_swapped:
            right = [request.right_tool for request in requests]
            return requests, reference, next(tools for tools in siblings if tools != right)
        careful = np.full_like(self.rates, _CAREFUL_RATE)
        return requests, reference, [decide_with_errors(request, careful, self.rng) for request in requests]


def contrast_desk_siblings(
    requests: Sequence[DeskRequest], siblings: Sequence[Sequence[str]], *, is_swapped: bool = False
) -> str:
    """The built-in writer's reference for siblings that called these tools; empty where nothing parts them."""
    played = [play_desk_tools(Task("demonstration", "action", {}), requests, tools) for tools in siblings]
    if len({one.verdict.success for one in played}) < 2:
        return ""
    traces = trace_demonstrations([replace(one, texts=("",)) for one in played])  # no text is an answer here
    try:
        return compose_reference(swap_outcomes(traces) if is_swapped else traces)
    except WriterFailed:
        return ""


def play_desk_tools(task: Task, requests: Sequence[DeskRequest], tools: Sequence[str]) -> Demonstration:
    """A conversation without thinking in which these tools are called, as a writer reads it."""
    opening = ({"role": "system", "content": DESK_TEXT}, {"role": "user", "content": requests[0].text})
    replies = [({"role": "tool", "content": "done"}, {"role": "user", "content": one.text}) for one in requests[1:]]
    success = all(tool == one.right_tool for tool, one in zip(tools, requests, strict=True))
    return Demonstration(
        task=task,
        opening=InitialMessages(opening, desk_tools(False)),
        texts=tuple(f"<call> {tool} item {one.item} </call>" for tool, one in zip(tools, requests, strict=True)),
        calls=tuple((Call(tool, {"item": one.item}),) for tool, one in zip(tools, requests, strict=True)),
        replies=(*replies, ()),
        verdict=Verdict(float(success), success),
        private=(),
    )
