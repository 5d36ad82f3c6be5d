"""The records of playing and contrasting: tasks, turns, rollouts, groups and references."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sgcd.errors import RecordError

TokenIds = NDArray[np.int32]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
TokenKinds = NDArray[np.uint8]
Message = dict[str, Any]
Category = str
CATEGORIES: tuple[Category, ...] = ("action", "information", "transfer", "no_action")
"""The categories that need no declaration; an environment may declare others."""
TOOL_CATEGORIES: tuple[Category, ...] = ("information", "action")
"""Those in which a success needs a tool."""


class TokenKind(IntEnum):
    """The kind of a token of a response. Every token that the policy did not write is GLUE."""

    GLUE = 0
    THINKING = 1
    CALL = 2
    ANSWER = 3


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to be done.

    >>> Task(id="train-0007", category="action", row={"seed": 7})
    Task(id='train-0007', category='action', row={'seed': 7}, needs_tool=None, floor=None, scenario=None)
    """

    id: str
    category: Category
    row: Mapping[str, Any]
    """What the environment needs to open it; plain JSON."""
    needs_tool: bool | None = None
    """Whether successes that called no tool are counted; None: as `TOOL_CATEGORIES` says."""
    floor: float | None = None
    """The reward of an agent that does nothing, where that is known."""
    scenario: str | None = None
    """The name of the tasks that are variants of one another, where an environment has such."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call as it was read from sampled tokens.

    >>> Call(name="get_booking", arguments={"booking": "b12"})
    Call(name='get_booking', arguments={'booking': 'b12'}, is_error=False)
    """

    name: str
    arguments: Mapping[str, Any]
    is_error: bool = False
    """True when the call could not be read or its tool answered with an error."""


@dataclass(frozen=True, slots=True)
class ParsedTurn:
    """The content of one turn of the policy, parsed from the sampled tokens.

    >>> ParsedTurn(thinking="", text="your cabin is basic", calls=()).malformed
    ''
    """

    thinking: str
    text: str
    calls: tuple[Call, ...]
    malformed: str = ""
    """Why a call could not be read; empty if every call could."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the policy: the half-open span [start, stop) of the response that it wrote, and its calls.

    >>> Turn(start=0, stop=9, calls=(Call("find_user", {"name": "mia"}),)).stop
    9
    """

    start: int
    stop: int
    calls: tuple[Call, ...] = ()
    malformed: str = ""
    """Why a call in this turn could not be read, in words; empty if every call could."""
    roundtrips: bool = True
    """Whether the tokenizer makes these very ids of the turn's text; the template gives back the text in any case."""
    text: str | None = None
    """The text outside thinking and calls; None in rollouts of sgcd 0.1, which did not record it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verifier's judgement of a rollout that was played to its end.

    >>> Verdict(reward=1.0, success=True, facts={"state": True}).success
    True
    """

    reward: float
    success: bool
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    public_facts: Mapping[str, bool] = field(default_factory=dict[str, bool])
    """What holds at the end, by words that a reference may use: {"refund issued": True}. All other facts are hidden."""


EndReason = Literal["answered", "ended", "turn_limit", "token_limit", "broken"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One play of one task, to the token. `response` is everything after the prompt, in one flat sequence.

    A response of seven tokens, of which the policy wrote the first four and the last:

    >>> import numpy as np
    >>> r = Rollout(task="t1", category="action", sibling=0, seed=1, prompt=np.array([1, 2], np.int32),
    ...     reference_position=1, response=np.array([5, 6, 7, 8, 3, 4, 9], np.int32),
    ...     response_mask=np.array([1, 1, 1, 1, 0, 0, 1], bool), token_kinds=np.array([2, 2, 2, 2, 0, 0, 3], np.uint8),
    ...     sampling_logprobs=np.zeros(7, np.float32), turns=(Turn(0, 4), Turn(6, 7)), messages=(), tools=(),
    ...     end_reason="answered", verdict=Verdict(1.0, True))
    >>> r.num_policy_tokens, r.success
    (5, True)
    """

    __pydantic_config__: ClassVar[dict[str, bool]] = {"arbitrary_types_allowed": True}  # arrays pass as they are

    task: str
    category: Category
    sibling: int
    seed: int
    prompt: TokenIds
    reference_position: int
    """Where in `prompt` a reference would go: before the end of the task's message; see chat/reference_place.py."""
    response: TokenIds
    response_mask: Flags
    """True exactly on the tokens that the policy sampled."""
    token_kinds: TokenKinds
    sampling_logprobs: Floats
    """The sampler's own log-probabilities (zero where the mask is False); the trainer computes its own."""
    turns: tuple[Turn, ...]
    messages: tuple[Message, ...]
    """The whole conversation; what the policy wrote is kept as raw strings."""
    tools: tuple[Mapping[str, Any], ...]
    end_reason: EndReason
    verdict: Verdict | None
    """None exactly when the rollout is broken."""
    truncations: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each limit cut something: observation, turns, tokens."""
    broken: str = ""
    """Which part of the machinery failed, and how; empty when none did."""
    private: tuple[str, ...] = ()
    """Literals that the environment declared private, for masking."""
    private_kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    """The kind of a literal, such as card or account, where the environment declares it."""
    needs_tool: bool | None = None
    """That of its task; None in rollouts of earlier versions."""

    def __post_init__(self) -> None:
        for name in ("response_mask", "token_kinds", "sampling_logprobs"):
            check_length(f"rollout {self.name}", name, getattr(self, name), len(self.response))
        if not 0 <= self.reference_position <= len(self.prompt):
            raise RecordError(
                f"rollout {self.name}: reference_position must lie within the prompt of {len(self.prompt)} tokens, "
                f"got {self.reference_position}"
            )
        if bool(self.broken) != (self.verdict is None):
            raise RecordError(
                f"rollout {self.name}: a rollout has either a verdict or a cause of breaking, never both or none"
            )

    @property
    def name(self) -> str:
        return f"{self.task}/{self.sibling}"

    @property
    def num_policy_tokens(self) -> int:
        """Number of tokens that the policy wrote."""
        return int(self.response_mask.sum())

    @property
    def success(self) -> bool:
        return self.verdict is not None and self.verdict.success

    @property
    def reward(self) -> float:
        return 0.0 if self.verdict is None else self.verdict.reward

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(call for turn in self.turns for call in turn.calls)


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one task under one policy, in the order of their indices; broken ones are kept apart."""

    task: Task
    rollouts: tuple[Rollout, ...]
    broken: tuple[Rollout, ...] = ()

    def is_mixed(self, min_reward_gap: float = 0.0) -> bool:
        """The best and the worst reward differ by more than `min_reward_gap`: there is something to learn."""
        rewards = [rollout.reward for rollout in self.rollouts]
        return bool(rewards) and max(rewards) - min(rewards) > min_reward_gap


@dataclass(frozen=True, slots=True)
class Reference:
    """A text about a task, written from the contrast between siblings; only the teacher reads it.

    >>> Reference(task="t1", text="checks : get_booking", writer="built-in").hash
    'd1bb98691560'
    """

    task: str
    text: str
    writer: str
    literals: tuple[str, ...] = ()
    """Values that stay masked during credit scoring (the fifth part of the template)."""

    @property
    def hash(self) -> str:
        from hashlib import sha256

        return sha256(self.text.encode()).hexdigest()[:12]


def check_length(record: str, name: str, array: NDArray[Any], expected: int) -> None:
    """Refuse an array that is not one number for each token."""
    if np.shape(array) != (expected,):
        actual = len(array) if np.ndim(array) == 1 else f"the shape {np.shape(array)}"
        raise RecordError(
            f"{record}: {name} must have {expected} entries, one for each token of the response, got {actual}"
        )
