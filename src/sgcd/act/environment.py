"""Protocols of an environment (open, reply, verify, private, close) and of a sampler, and the records they return."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from sgcd.records import Call, Floats, Message, ParsedTurn, Task, TokenIds, Verdict


@dataclass(frozen=True, slots=True)
class InitialMessages:
    """How a task begins: the messages before the policy's first turn, and the tools."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    """JSON schemas in the shape that chat templates expect: {"type": "function", "function": {...}}."""
    ask_user: "Callable[[], Awaitable[Reply]] | None" = None
    """Requests the first message of a simulated user, where it begins."""
    late_tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that only a later message describes. The policy may call them at any time."""

    @property
    def tool_names(self) -> frozenset[str]:
        return frozenset(str(tool["function"]["name"]) for tool in (*self.tools, *self.late_tools))


@dataclass(frozen=True, slots=True)
class Reply:
    """The environment's reply to one turn: messages to append, whether the task is over, and which calls failed."""

    messages: tuple[Message, ...] = ()
    done: bool = False
    call_errors: tuple[bool, ...] = ()
    """One flag for each call of the turn: True when the tool answered with an error."""
    calls: tuple[Call, ...] = ()
    """Calls that the environment itself read from the text of a turn that has no others, such as code to run."""
    ask_user: "Callable[[], Awaitable[Reply]] | None" = None
    """Requests the message of a simulated user, where it replies instead. Its endpoint has its own timeouts."""


PrivateLiterals = tuple[str, ...] | Mapping[str, Sequence[str]]
"""Literals, or literals by kind, such as {"card": ["4111..."]}, which are masked as hidden_card."""


class Environment(Protocol):
    """One object plays one task once. An exception or a timeout in `open`, `reply` or `verify` breaks the rollout."""

    async def open(self, task: Task, seed: int) -> InitialMessages: ...

    async def reply(self, turn: ParsedTurn) -> Reply: ...

    async def verify(self) -> Verdict: ...

    def private(self) -> PrivateLiterals:
        """Literals that no reference may contain: secrets, gold values, values that answer the task."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TaskSuite:
    """The splits of tasks, and a factory of environments, one per rollout."""

    environment_factory: Callable[[], Environment]
    splits: Mapping[str, tuple[Task, ...]]
    """At least "train"; "dev" and "test" where held-out tasks exist."""
    sharing: str = ""
    """What must be known before a run that played these tasks is shown to others."""


@dataclass(frozen=True, slots=True)
class SampledTurn:
    """One sampled turn: the ids (with the end-of-turn token, if sampled) and their log-probs."""

    token_ids: TokenIds
    logprobs: Floats
    hit_end_token: bool
    """True when the policy ended its turn; False when `max_new_tokens` cut it."""


class Session(Protocol):
    """One rollout in a sampler: it keeps the context, so that each turn sends only new ids."""

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        """Append `new_ids` to the context, then sample up to the end of the turn, at most `max_new_tokens` tokens."""
        ...

    def close(self) -> None: ...


class Cohort(Protocol):
    """A set of rollouts that are sampled together."""

    def session(self, index: int, seed: int) -> Session:
        """The session of the rollout at `index`; its random draws depend on `seed` alone."""
        ...


class Sampler(Protocol):
    def cohort(self, size: int, temperature: float | None = None) -> AbstractAsyncContextManager[Cohort]:
        """Reserve slots for `size` rollouts; each must open its session and close it.

        Temperature 0 is greedy; None means the recipe's.
        """
        ...

    @property
    def slots(self) -> int:
        """The size of the largest cohort."""
        ...
