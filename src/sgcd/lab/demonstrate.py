"""Demonstrations for the warm starts: a script that knows the world plays it, with errors where the decisions are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sgcd.act.environment import Opening
from sgcd.chat import Chat, parse_words
from sgcd.contrast.trace import Trace, trace
from sgcd.lab import words
from sgcd.lab.world import READ_FOR, TRANSFERS, WRITE_FOR, Airline, Booking, Request, allowed, row_of, written
from sgcd.records import Call, Ids, Kind, Kinds, Message, Rollout, Said, Task, Turn, Verdict


@dataclass(frozen=True, slots=True)
class Care:
    """How often a script errs at each kind of decision."""

    lookup: float
    """Decides before it has looked the customer up."""
    check: float
    """Leaves out the tool that holds the deciding fact (or takes the other one)."""
    refuse: float
    """Refuses, or takes another tool, where the policy allows."""
    comply: float
    """Does it where the policy forbids."""
    keep: float
    """Keeps a case that belongs to a human."""
    tell: float
    """Tells something else than the fact that was asked for."""


NOISY = Care(lookup=0.1, check=0.42, refuse=0.4, comply=0.5, keep=0.56, tell=0.25)
PERFECT = Care(lookup=0.0, check=0.0, refuse=0.0, comply=0.0, keep=0.0, tell=0.0)
CAREFUL = Care(lookup=0.01, check=0.05, refuse=0.06, comply=0.08, keep=0.06, tell=0.03)


@dataclass(slots=True)
class Script:
    """The next words of an agent that knows the truth and sometimes errs; one object plays one task."""

    task: Task
    care: Care
    rng: np.random.Generator
    thoughts: words.Thoughts = ()
    done: set[str] = field(default_factory=set)
    answered: int = 0
    row: Booking = field(init=False)

    def __post_init__(self) -> None:
        self.row = row_of(self.task.row["rows"][0])

    def turn(self) -> str:
        thinking = (
            f"<think> {' '.join(str(self.rng.choice(p)) for p in self.thoughts)} </think> " if self.thoughts else ""
        )
        return thinking + self._decide()

    def heard(self, call: Call) -> None:
        """A call was carried out; the script knows what it changed."""
        self.done.add(call.name)
        if call.name in words.WRITES:
            self.row = written(call.name, self.row, [*call.arguments.values()][-1])

    def _errs(self, rate: float) -> bool:
        return bool(self.rng.random() < rate)

    def _decide(self) -> str:
        row = self.row
        request = Request(**self.task.row["requests"][self.answered])
        if self.done & {*words.WRITES}:
            return self._say(words.CONFIRMATION)
        if "transfer_to_human" in self.done:
            return self._say(words.HANDOVER)
        if "find_user" not in self.done and not self._errs(self.care.lookup):
            return _call("find_user", row.name)
        need = READ_FOR.get(request.intent)
        if need and need not in self.done and "find_user" in self.done:
            if not self._errs(self.care.check):
                return _call(need, row.booking)
            other = "get_flight" if need == "get_booking" else "get_booking"
            if other not in self.done and self._errs(0.4):
                return _call(other, row.booking)
        informed = "find_user" in self.done and (need is None or need in self.done)
        return self._act(request, informed)

    def _act(self, request: Request, informed: bool) -> str:
        row = self.row
        if request.intent.startswith("ask_"):
            return self._tell(request.intent.removeprefix("ask_"), informed)
        if request.intent in TRANSFERS:
            return self._say(words.REFUSAL) if self._errs(self.care.keep) else _call("transfer_to_human")
        may = allowed(request, row) if informed else self._errs(0.55)
        does = not self._errs(self.care.refuse) if may else self._errs(self.care.comply)
        if "find_user" not in self.done:
            return self._say(words.REFUSAL) if self._errs(0.6) else _call("transfer_to_human")
        if does:
            return _call(WRITE_FOR[request.intent], row.booking, request.value)
        return _call("transfer_to_human") if may and self._errs(0.3) else self._say(words.REFUSAL)

    def _tell(self, attribute: str, informed: bool) -> str:
        known = {
            "cabin": words.CABINS,
            "insured": words.INSURED,
            "status": words.STATUSES,
            "tier": words.TIERS,
            "city": words.CITIES,
        }
        if not informed:
            return self._say(words.FACT.format(attribute=attribute, value=str(self.rng.choice(known[attribute]))))
        if self._errs(self.care.tell):
            return self._say(words.REFUSAL)
        return self._say(words.FACT.format(attribute=attribute, value=getattr(self.row, attribute)))

    def _say(self, text: str) -> str:
        self.answered += 1
        self.done -= {*words.WRITES, "transfer_to_human"}
        return text


def _call(tool: str, *values: str) -> str:
    arguments, _ = words.TOOLS[tool]
    pairs = " ".join(f"{name} {value}" for name, value in zip(arguments, values, strict=False))
    return " ".join(f"{words.BEFORE_CALL} <call> {tool} {pairs} </call>".split())


@dataclass(frozen=True, slots=True)
class Played:
    """A task played by a script, in words: what was said, what came back after it, and how it ended."""

    task: Task
    opening: Opening
    texts: tuple[str, ...]
    calls: tuple[tuple[Call, ...], ...]
    replies: tuple[tuple[Message, ...], ...]
    verdict: Verdict
    private: tuple[str, ...]

    @property
    def trace(self) -> Trace:
        said = self.texts[-1].rpartition(" </think> ")[2]
        return trace(self.verdict.success, [call.name for calls in self.calls for call in calls], said, self.private)


async def enact(task: Task, script: Script, said_at_once: str = "") -> Played:
    """Play a task by a script, or by one sentence that answers at once."""
    world = Airline(script.thoughts)
    opening = await world.open(task, 0)
    texts, calls, replies = list[str](), list[tuple[Call, ...]](), list[tuple[Message, ...]]()
    over = False
    while not over:
        text = said_at_once or script.turn()
        spoken = text.rpartition(" </think> ")[2]
        call = parse_words(spoken.partition("<call>")[2].partition("</call>")[0]) if "<call>" in spoken else None
        assert not isinstance(call, str), call
        thinking = text.removesuffix(spoken).removeprefix("<think> ").removesuffix(" </think> ")
        said = Said(thinking, spoken, (call,) if call else ())
        reply = await world.reply(said)
        if call:
            script.heard(call)
        texts.append(text)
        calls.append(said.calls)
        replies.append(reply.messages)
        over = reply.done
    return Played(task, opening, tuple(texts), tuple(calls), tuple(replies), await world.verify(), world.private())


def tokens(played: Played, chat: Chat) -> Rollout:
    """A demonstration to the token, as a policy would have sampled it."""
    opened = chat.open(played.opening.messages, played.opening.tools, played.opening.harness)
    messages: list[Message] = [*opened.messages]
    pieces: list[tuple[Ids, Kinds]] = []
    turns: list[Turn] = []
    length = 0
    for text, calls, reply in zip(played.texts, played.calls, played.replies, strict=True):
        ids = np.append(chat.words_of_policy(text), np.int32(chat.end)).astype(np.int32)
        turns.append(Turn(length, length + len(ids), calls))
        messages.append(chat.said_message(ids, True))
        pieces.append((ids, chat.read(ids)[1]))
        if reply:
            glue, clean = chat.extend(reply)
            messages.extend(clean)
            pieces.append((glue, np.full(len(glue), Kind.GLUE, np.uint8)))
        length = sum(len(ids) for ids, _ in pieces)
    kinds = np.concatenate([kind for _, kind in pieces]).astype(np.uint8)
    return Rollout(
        task=played.task.id, category=played.task.category, sibling=0, seed=0,
        prompt=opened.ids, insert_at=opened.insert_at,
        response=np.concatenate([ids for ids, _ in pieces]), mask=kinds != Kind.GLUE, kinds=kinds,
        sampled_logp=np.zeros(length, np.float32), turns=tuple(turns), messages=tuple(messages),
        tools=played.opening.tools, ending="answered", verdict=played.verdict, private=played.private,
    )  # fmt: skip


def leak(told: str) -> str:
    """The text of a leaky reference: it tells the final answer. Only the lab ever writes one."""
    return f"the final answer is : {told} ."


def loss_weights(rollout: Rollout, chat: Chat) -> Sequence[float]:
    """Weights of the supervised loss: arguments of calls x6, names of tools x2, thinking x0.2 (it is
    noise), what the policy did not write 0."""
    weights = np.where(rollout.kinds == Kind.THINKING, np.float32(0.2), rollout.mask.astype(np.float32))
    opening = int(chat.words_of_policy("<call>")[0])
    for start in np.flatnonzero(rollout.response == opening):
        stop = start + int(np.flatnonzero(rollout.kinds[start:] != Kind.CALL).min(initial=len(rollout.kinds) - start))
        weights[start + 1] *= 2
        weights[start + 3 : stop - 2 : 2] *= 6
    return weights.tolist()
