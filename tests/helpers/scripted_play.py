"""A chat, a sampler and an environment that follow a script, so that a test can write out every token."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from sgcd.act.environment import InitialMessages, Reply, SampledTurn, Sampler, TaskSuite
from sgcd.chat import Chat, EncodedPrompt
from sgcd.records import Call, Message, ParsedTurn, Task, TokenIds, TokenKind, TokenKinds, Verdict

# A conversation is <role> words <end> <role> words <end> ...; the policy begins after <assistant>.
MARKS = ["<end>", "<system>", "<user>", "<assistant>", "<tool>", "<think>", "</think>", "<call>", "</call>"]
WORDS = ["be", "kind", "find", "mia", "get", "look", "name", "b12", "found", "error", ":", "unknown", "tool", "grab"]
VOCABULARY = {word: number for number, word in enumerate([*MARKS, *WORDS])}
# 0 <end> 1 <system> 2 <user> 3 <assistant> 4 <tool> 5 <think> 6 </think> 7 <call> 8 </call>
# 9 be 10 kind 11 find 12 mia 13 get 14 look 15 name 16 b12 17 found 18 error 19 : 20 unknown 21 tool 22 grab


def ids_of(text: str) -> TokenIds:
    """New words get new numbers."""
    return np.array([VOCABULARY.setdefault(word, len(VOCABULARY)) for word in text.split()], np.int32)


class ScriptedChat:
    """Word by word, with the marks above. A call is <call> tool name value </call>."""

    end_id = 0

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> EncodedPrompt:
        ids = self.encode_conversation(messages, add_generation_prompt=True)
        return EncodedPrompt(ids, len(ids) - 2, tuple(messages))

    def encode_reply(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> tuple[TokenIds, tuple[Message, ...]]:
        return self.encode_conversation(messages, add_generation_prompt=add_generation_prompt), tuple(messages)

    def encode_conversation(
        self, messages: Sequence[Message], tools: object = (), add_generation_prompt: bool = False
    ) -> TokenIds:
        closed = [f"<{m['role']}> {m['content']}" + ("" if m.get("unfinished") else " <end>") for m in messages]
        return ids_of(" ".join([*closed, "<assistant>"] if add_generation_prompt else closed))

    def decode(self, ids: TokenIds) -> str:
        return " ".join(list(VOCABULARY)[number] for number in ids)

    def turn_message(self, ids: TokenIds, hit_end_token: bool) -> Message:
        if hit_end_token:
            return {"role": "assistant", "content": self.decode(ids[:-1])}
        return {"role": "assistant", "content": self.decode(ids), "unfinished": True}

    def roundtrips(self, ids: TokenIds) -> bool:
        return True

    def parse_turn(self, ids: TokenIds, tools: object = ()) -> tuple[ParsedTurn, TokenKinds]:
        kinds, kind = np.zeros(len(ids), np.uint8), TokenKind.ANSWER
        for place, number in enumerate(ids):
            kind = {5: TokenKind.THINKING, 7: TokenKind.CALL}.get(int(number), kind)
            kinds[place] = kind
            kind = TokenKind.ANSWER if number in (6, 8) else kind
        words = self.decode(ids).replace(" <end>", "").split()
        calls, malformed, text = list[Call](), "", list[str]()
        while words:
            word = words.pop(0)
            if word != "<call>":
                text.append(word)
                continue
            inside = words[: words.index("</call>")] if "</call>" in words else words
            words = words[len(inside) + 1 :]
            if len(inside) % 2 == 1:
                calls.append(Call(inside[0], dict(zip(inside[1::2], inside[2::2], strict=True))))
            else:
                malformed = "look needs a value"
        return ParsedTurn("", " ".join(text), () if malformed else tuple(calls), malformed), kinds


CHAT = cast(Chat, ScriptedChat())


@dataclass
class ScriptedSession:
    """Samples its scripted turns in order and records its context; its log-probabilities are -1/8, -2/8, ..."""

    turns: list[str]
    delays: random.Random | None = None
    context: list[int] = field(default_factory=list)
    closed: int = 0
    failure: Exception | None = None

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        assert not self.closed
        assert max_new_tokens > 0
        if self.delays:
            await asyncio.sleep(self.delays.random() / 500)
        if not self.turns and self.failure:
            raise self.failure
        ids = ids_of(self.turns.pop(0) + " <end>")[:max_new_tokens]
        self.context += [*new_ids.tolist(), *ids.tolist()]
        return SampledTurn(
            ids, -np.arange(1, len(ids) + 1, dtype=np.float32) / np.float32(8), hit_end_token=bool(ids[-1] == 0)
        )

    def close(self) -> None:
        self.closed += 1


@dataclass
class ScriptedSampler:
    """Sessions whose words follow from their seed alone, whatever the delays."""

    script: Callable[[int], list[str]]
    slots: int = 8
    delays: random.Random | None = None
    sizes: list[int] = field(default_factory=list)
    sessions: list[ScriptedSession] = field(default_factory=list)
    failure: Exception | None = None

    @asynccontextmanager
    async def cohort(self, size: int, temperature: float | None = None):
        assert size <= self.slots
        self.sizes.append(size)
        yield self

    def session(self, index: int, seed: int) -> ScriptedSession:
        session = ScriptedSession(self.script(seed), self.delays, failure=self.failure)
        self.sessions.append(session)
        return session

    def as_sampler(self) -> Sampler:
        return cast(Sampler, self)


LOOK = {"type": "function", "function": {"name": "look", "parameters": {}}}
OPENING = InitialMessages(({"role": "system", "content": "be kind"}, {"role": "user", "content": "find mia"}), (LOOK,))
TASK = Task("t1", "action", {})


def tool(content: str) -> Reply:
    """A tool's answer."""
    return Reply(({"role": "tool", "content": content},))


WON = Verdict(1.0, True)


class ScriptedEnvironment:
    """Opens with OPENING, gives its replies in order, then is done. An exception is raised; None hangs."""

    def __init__(self, *replies: Any, opening: Any = OPENING, verdict: Any = WON, private: Any = ("b12",)):
        self.replies, self.opening, self.verdict, self.secret = list(replies), opening, verdict, private
        self.turns: list[ParsedTurn] = []
        self.closed = 0

    async def _give(self, value: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        if value is None:
            await asyncio.sleep(3600)
        return value

    async def open(self, task: Task, seed: int) -> InitialMessages:
        return await self._give(self.opening)

    async def reply(self, turn: ParsedTurn) -> Reply:
        self.turns.append(turn)
        return await self._give(self.replies.pop(0) if self.replies else Reply(done=True))

    async def verify(self) -> Verdict:
        return await self._give(self.verdict)

    def private(self) -> tuple[str, ...]:
        if isinstance(self.secret, BaseException):
            raise self.secret
        return self.secret

    async def close(self) -> None:
        self.closed += 1


def stage_of(environment: Callable[[], Any], tasks: Sequence[Task] = (TASK,)) -> TaskSuite:
    return TaskSuite(environment, {"train": tuple(tasks)})


def tasks_of(number: int) -> list[Task]:
    return [Task(f"t{i}", "action", {}) for i in range(number)]
