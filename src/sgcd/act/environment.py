"""What an environment is (open, reply, verify, private) and what a sampler is, as act needs them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from sgcd.records import Floats, Message, ParsedTurn, Task, TokenIds, Verdict


@dataclass(frozen=True, slots=True)
class InitialMessages:
    """How a task begins: the messages before the policy's first word, the tools, which message is the harness's own."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    """JSON schemas in the shape that chat templates expect: {"type": "function", "function": {...}}."""
    reference_message: int = 0
    """Index of the last message that the harness authored: a reference may go in there, never in a user's words."""
    ask_user: "Callable[[], Awaitable[Reply]] | None" = None
    """Where a simulated user says the first words: asks it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The environment's answer to one turn: messages to append, whether it is over, and which calls failed."""

    messages: tuple[Message, ...] = ()
    done: bool = False
    call_errors: tuple[bool, ...] = ()
    """One flag for each call of the turn: True when the tool answered with an error."""
    ask_user: "Callable[[], Awaitable[Reply]] | None" = None
    """Where a simulated user answers instead: asks it. Its endpoint has time limits of its own."""


PrivateLiterals = tuple[str, ...] | Mapping[str, Sequence[str]]
"""Literals; or literals by what they are, such as {"card": ["4111..."]}, which then stand as hidden_card."""


class Environment(Protocol):
    """One object plays one task once. Whatever these methods raise (or a time-out) makes the rollout broken."""

    async def open(self, task: Task, seed: int) -> InitialMessages: ...

    async def reply(self, turn: ParsedTurn) -> Reply: ...

    async def verify(self) -> Verdict: ...

    def private(self) -> PrivateLiterals:
        """Literals that no reference may show: secrets, gold, values that answer the task."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TaskSuite:
    """Where tasks are played: the splits, and how to make an environment for one play."""

    environment_factory: Callable[[], Environment]
    splits: Mapping[str, tuple[Task, ...]]
    """At least "train"; "dev" and "test" where held-out tasks exist."""


@dataclass(frozen=True, slots=True)
class SampledTurn:
    """What a sampler returns for one turn: the ids (with the end-of-turn token, if sampled) and their log-probs."""

    token_ids: TokenIds
    logprobs: Floats
    hit_end_token: bool
    """True when the policy ended its turn; False when `limit` cut it."""


class Session(Protocol):
    """One rollout's place in a sampler: it remembers what was fed and sampled, so that each turn sends only new ids."""

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        """Append `new` to the context, then sample at most `limit` tokens, up to and including the end of the turn."""
        ...

    def close(self) -> None: ...


class Cohort(Protocol):
    """Rollouts that are sampled together."""

    def session(self, index: int, seed: int) -> Session:
        """The session of the cohort's rollout number `index`; its draws depend on `seed` alone."""
        ...


class Sampler(Protocol):
    def cohort(self, size: int, temperature: float | None = None) -> AbstractAsyncContextManager[Cohort]:
        """Make room for `size` rollouts; each must open its session and close it.

        Temperature 0 is greedy; None is the recipe's.
        """
        ...

    @property
    def slots(self) -> int:
        """The largest cohort."""
        ...
