"""Makes demonstrations for the warm starts: a script plays tasks and errs at their decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sgcd.act.environment import InitialMessages
from sgcd.chat import Chat, parse_word_call
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.steps import StepBuilder
from sgcd.contrast.trace import Trace
from sgcd.lab import words
from sgcd.lab.world import (
    READ_TOOL_OF,
    TRANSFER_INTENTS,
    WRITE_TOOL_OF,
    Airline,
    Booking,
    Request,
    apply_write,
    booking_from_json,
    is_allowed,
)
from sgcd.records import Call, Message, ParsedTurn, Rollout, Task, TokenIds, TokenKind, TokenKinds, Turn, Verdict


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """A script's error rate at each kind of decision."""

    lookup: float
    """It decides before it looks up the customer."""
    check: float
    """It leaves out the tool that returns the deciding fact, or takes the other one."""
    refuse: float
    """It refuses, or calls another tool, where the policy allows the request."""
    comply: float
    """It complies where the policy forbids the request."""
    keep: float
    """It keeps a case that belongs to a human."""
    tell: float
    """It does not answer with the requested fact."""


NOISY = ErrorRates(lookup=0.1, check=0.5, refuse=0.25, comply=0.25, keep=0.56, tell=0.25)
ALWAYS_ACTS = replace(NOISY, refuse=0.0, comply=1.0)
ALWAYS_REFUSES = replace(NOISY, refuse=1.0, comply=0.0)
PERFECT = ErrorRates(lookup=0.0, check=0.0, refuse=0.0, comply=0.0, keep=0.0, tell=0.0)
CAREFUL = ErrorRates(lookup=0.01, check=0.05, refuse=0.06, comply=0.08, keep=0.06, tell=0.03)


@dataclass(slots=True)
class Script:
    """A scripted agent that knows the truth and errs at given rates; one object plays one task."""

    task: Task
    error_rates: ErrorRates
    rng: np.random.Generator
    thoughts: words.ThoughtPools = ()
    tools_called: set[str] = field(default_factory=set)
    num_answered: int = 0
    row: Booking = field(init=False)

    def __post_init__(self) -> None:
        self.row = booking_from_json(self.task.row["rows"][0])

    def next_turn(self) -> str:
        """The text of the next turn, with thinking in a chatty world."""
        thinking = (
            f"<think> {' '.join(str(self.rng.choice(p)) for p in self.thoughts)} </think> " if self.thoughts else ""
        )
        return thinking + self._decide()

    def apply_call(self, call: Call) -> None:
        """Record an executed call and its change of the row."""
        self.tools_called.add(call.name)
        if call.name in words.WRITE_TOOLS:
            self.row = apply_write(call.name, self.row, [*call.arguments.values()][-1])

    def _errs(self, rate: float) -> bool:
        return bool(self.rng.random() < rate)

    def _decide(self) -> str:
        row = self.row
        request = Request(**self.task.row["requests"][self.num_answered])
        if self.tools_called & {*words.WRITE_TOOLS}:
            return self._give_answer(words.CONFIRMATION)
        if "transfer_to_human" in self.tools_called:
            return self._give_answer(words.HANDOVER)
        if "find_user" not in self.tools_called and not self._errs(self.error_rates.lookup):
            return call_text("find_user", row.name)
        needed_tool = READ_TOOL_OF.get(request.intent)
        if needed_tool and needed_tool not in self.tools_called and "find_user" in self.tools_called:
            if not self._errs(self.error_rates.check):
                return call_text(needed_tool, row.booking)
            other_tool = "get_flight" if needed_tool == "get_booking" else "get_booking"
            if other_tool not in self.tools_called and self._errs(0.4):
                return call_text(other_tool, row.booking)
        informed = "find_user" in self.tools_called and (needed_tool is None or needed_tool in self.tools_called)
        return self._act(request, informed)

    def _act(self, request: Request, informed: bool) -> str:
        row = self.row
        if request.intent.startswith("ask_"):
            return self._state_fact(request.intent.removeprefix("ask_"), informed)
        if request.intent in TRANSFER_INTENTS:
            return (
                self._give_answer(words.REFUSAL)
                if self._errs(self.error_rates.keep)
                else call_text("transfer_to_human")
            )
        allowed = is_allowed(request, row) if informed else self._errs(0.55)
        acts = not self._errs(self.error_rates.refuse) if allowed else self._errs(self.error_rates.comply)
        if "find_user" not in self.tools_called:
            return self._give_answer(words.REFUSAL) if self._errs(0.6) else call_text("transfer_to_human")
        if acts:
            return call_text(WRITE_TOOL_OF[request.intent], row.booking, request.value)
        return call_text("transfer_to_human") if allowed and self._errs(0.3) else self._give_answer(words.REFUSAL)

    def _state_fact(self, attribute: str, informed: bool) -> str:
        known = {
            "cabin": words.CABINS,
            "insured": words.INSURED,
            "status": words.STATUSES,
            "tier": words.TIERS,
            "city": words.CITIES,
        }
        if not informed:
            return self._give_answer(
                words.FACT_TEMPLATE.format(attribute=attribute, value=str(self.rng.choice(known[attribute])))
            )
        if self._errs(self.error_rates.tell):
            return self._give_answer(words.REFUSAL)
        return self._give_answer(words.FACT_TEMPLATE.format(attribute=attribute, value=getattr(self.row, attribute)))

    def _give_answer(self, text: str) -> str:
        self.num_answered += 1
        self.tools_called -= {*words.WRITE_TOOLS, "transfer_to_human"}
        return text


def call_text(tool: str, *values: str) -> str:
    arguments, _ = words.TOOLS[tool]
    pairs = " ".join(f"{name} {value}" for name, value in zip(arguments, values, strict=False))
    return " ".join(f"{words.BEFORE_CALL} <call> {tool} {pairs} </call>".split())


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A task played by a script, as text: turns, calls, replies and verdict."""

    task: Task
    opening: InitialMessages
    texts: tuple[str, ...]
    calls: tuple[tuple[Call, ...], ...]
    replies: tuple[tuple[Message, ...], ...]
    verdict: Verdict
    private: tuple[str, ...]


async def play_script(task: Task, script: Script, immediate_answer: str = "") -> Demonstration:
    """Play a task with a script, or with one sentence that is the answer."""
    world = Airline(script.thoughts)
    opening = await world.open(task, 0)
    texts, calls, replies = list[str](), list[tuple[Call, ...]](), list[tuple[Message, ...]]()
    is_done = False
    while not is_done:
        text = immediate_answer or script.next_turn()
        spoken = text.rpartition(" </think> ")[2]
        call = parse_word_call(spoken.partition("<call>")[2].partition("</call>")[0]) if "<call>" in spoken else None
        assert not isinstance(call, str), call
        thinking = text.removesuffix(spoken).removeprefix("<think> ").removesuffix(" </think> ")
        parsed_turn = ParsedTurn(thinking, spoken, (call,) if call else ())
        reply = await world.reply(parsed_turn)
        if call:
            script.apply_call(call)
        texts.append(text)
        calls.append(parsed_turn.calls)
        replies.append(reply.messages)
        is_done = reply.done
    return Demonstration(
        task, opening, tuple(texts), tuple(calls), tuple(replies), await world.verify(), world.private()
    )


def trace_demonstrations(demonstrations: Sequence[Demonstration]) -> list[Trace]:
    """Demonstrations of one task as the built-in writer reads them: their steps and their outcomes."""
    no_ids, no_mask = np.zeros(0, np.int32), np.zeros(0, np.bool_)
    rollouts = [
        Rollout(
            task=played.task.id, category=played.task.category, sibling=sibling, seed=0, prompt=no_ids,
            reference_position=0, response=no_ids, response_mask=no_mask, token_kinds=np.zeros(0, np.uint8),
            sampling_logprobs=np.zeros(0, np.float32), turns=tuple(Turn(0, 0, calls) for calls in played.calls),
            messages=played.opening.messages, tools=played.opening.tools, end_reason="answered",
            verdict=played.verdict, private=played.private,
        )
        for sibling, played in enumerate(demonstrations)
    ]  # fmt: skip
    builder = StepBuilder(rollouts, Literals.from_texts(demonstrations[0].private).mask)
    traces: list[Trace] = []
    for rollout, played in zip(rollouts, demonstrations, strict=True):
        answer = played.texts[-1].rpartition(" </think> ")[2]
        steps = builder.build(rollout, played.opening.messages, played.replies, answer)
        traces.append(Trace(played.verdict.success, (), rollout.sibling, steps=steps))
    return traces


def encode_demonstration(demonstration: Demonstration, chat: Chat) -> Rollout:
    """A demonstration as a rollout, with the tokens that a policy would have sampled."""
    encoded_prompt = chat.encode_prompt(demonstration.opening.messages, demonstration.opening.tools)
    messages: list[Message] = [*encoded_prompt.messages]
    pieces: list[tuple[TokenIds, TokenKinds]] = []
    turns: list[Turn] = []
    length = 0
    for text, calls, reply in zip(demonstration.texts, demonstration.calls, demonstration.replies, strict=True):
        ids = np.append(chat.encode_policy_text(text), np.int32(chat.end_id)).astype(np.int32)
        turns.append(Turn(length, length + len(ids), calls))
        messages.append(chat.turn_message(ids, True))
        pieces.append((ids, chat.parse_turn(ids)[1]))
        if reply:
            glue_ids, clean_messages = chat.encode_reply(reply)
            messages.extend(clean_messages)
            pieces.append((glue_ids, np.full(len(glue_ids), TokenKind.GLUE, np.uint8)))
        length = sum(len(ids) for ids, _ in pieces)
    kinds = np.concatenate([kind for _, kind in pieces]).astype(np.uint8)
    return Rollout(
        task=demonstration.task.id, category=demonstration.task.category, sibling=0, seed=0,
        prompt=encoded_prompt.token_ids, reference_position=encoded_prompt.reference_position,
        response=np.concatenate([ids for ids, _ in pieces]), response_mask=kinds != TokenKind.GLUE, token_kinds=kinds,
        sampling_logprobs=np.zeros(length, np.float32), turns=tuple(turns), messages=tuple(messages),
        tools=demonstration.opening.tools, end_reason="answered", verdict=demonstration.verdict,
        private=demonstration.private,
    )  # fmt: skip


def sft_loss_weights(rollout: Rollout, chat: Chat) -> Sequence[float]:
    """Weight of each token in the supervised loss: call arguments 6, tool names 2, thinking 0.2 (it is noise), other
    policy tokens 1, all else 0."""
    weights = np.where(
        rollout.token_kinds == TokenKind.THINKING, np.float32(0.2), rollout.response_mask.astype(np.float32)
    )
    call_token_id = int(chat.encode_policy_text("<call>")[0])
    for start in np.flatnonzero(rollout.response == call_token_id):
        stop = start + int(
            np.flatnonzero(rollout.token_kinds[start:] != TokenKind.CALL).min(initial=len(rollout.token_kinds) - start)
        )
        weights[start + 1] *= 2
        weights[start + 3 : stop - 2 : 2] *= 6
    return weights.tolist()
