"""The nouns: what passes from room to room, each with an example, each checked for length where it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sgcd.errors import RecordError
from sgcd.settings import Divergence, TeacherContext, TeacherModel

TokenIds = NDArray[np.int32]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
TokenKinds = NDArray[np.uint8]
Message = dict[str, Any]
Category = Literal["action", "information", "transfer", "no_action"]
CATEGORIES: tuple[Category, ...] = ("action", "information", "transfer", "no_action")


class TokenKind(IntEnum):
    """What a token of a response is. Everything that the policy did not write is GLUE."""

    GLUE = 0
    THINKING = 1
    CALL = 2
    ANSWER = 3


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to be done.

    >>> Task(id="train-0007", category="action", row={"seed": 7})
    Task(id='train-0007', category='action', row={'seed': 7})
    """

    id: str
    category: Category
    row: Mapping[str, Any]
    """What the environment needs to open it; plain JSON."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call as it was read from sampled tokens.

    >>> Call(name="get_booking", arguments={"booking": "b12"})
    Call(name='get_booking', arguments={'booking': 'b12'}, failed=False)
    """

    name: str
    arguments: Mapping[str, Any]
    is_error: bool = False
    """True when the call could not be read or its tool answered with an error."""


@dataclass(frozen=True, slots=True)
class ParsedTurn:
    """What the policy said in one turn, as the chat read it from the sampled tokens.

    >>> Said(thinking="", text="your cabin is basic", calls=()).malformed
    ''
    """

    thinking: str
    text: str
    calls: tuple[Call, ...]
    malformed: str = ""
    """Why a call could not be read; empty when all was well."""


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
    """Why a call in this turn could not be read, in words; empty when all was well."""
    roundtrips: bool = True
    """Whether the tokenizer makes these very ids of the turn's text; the template gives back the text in any case."""
    text: str | None = None
    """What the turn says outside thinking and calls; None in rollouts of sgcd 0.1, which did not record it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier says of a rollout that was played to its end.

    >>> Verdict(reward=1.0, success=True, facts={"state": True, "told": True}).success
    True
    """

    reward: float
    success: bool
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


EndReason = Literal["answered", "ended", "turn_limit", "token_limit", "broken"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One play of one task, to the token. `response` is everything after the prompt, in one flat sequence.

    A response of seven tokens, of which the policy wrote the first four and the last:

    >>> import numpy as np
    >>> r = Rollout(task="t1", category="action", sibling=0, seed=1, prompt=np.array([1, 2], np.int32), insert_at=1,
    ...     response=np.array([5, 6, 7, 8, 3, 4, 9], np.int32), mask=np.array([1, 1, 1, 1, 0, 0, 1], bool),
    ...     kinds=np.array([2, 2, 2, 2, 0, 0, 3], np.uint8), sampled_logp=np.zeros(7, np.float32),
    ...     turns=(Turn(0, 4), Turn(6, 7)), messages=(), tools=(), ending="answered", verdict=Verdict(1.0, True))
    >>> r.written, r.success
    (5, True)
    """

    __pydantic_config__: ClassVar[dict[str, bool]] = {"arbitrary_types_allowed": True}  # arrays pass as they are

    task: str
    category: Category
    sibling: int
    seed: int
    prompt: TokenIds
    reference_position: int
    """Where in `prompt` a reference would go: before the end of the last message that the harness authored."""
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
    """By the literal what it is, such as card or account, where the environment says so."""

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
        """How many tokens the policy wrote."""
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

    @property
    def mixed(self) -> bool:
        """Some succeeded and some failed: there is something to learn."""
        return len({r.success for r in self.rollouts}) == 2


@dataclass(frozen=True, slots=True)
class Reference:
    """What the contrast between siblings says about a task, in words; shown to the teacher alone.

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


@dataclass(frozen=True, slots=True)
class Features:
    """What scoring leaves behind: three numbers for each token of a response, in no way tied to the model.

    >>> import numpy as np
    >>> zero = np.zeros(3, np.float32)
    >>> Features(divergence=zero, entropy=zero, gap=zero).length
    3
    """

    divergence: Floats
    """d, between student and teacher over the teacher's top-K, the observed token and the tail."""
    entropy: Floats
    """H of the teacher over the same outcomes."""
    teacher_logprob_gap: Floats
    """log q(y) - log p(y) of the sampled token."""

    def __post_init__(self) -> None:
        for name in ("entropy", "teacher_logprob_gap"):
            check_length("features", name, getattr(self, name), len(self.divergence))

    @property
    def length(self) -> int:
        return len(self.divergence)


@dataclass(frozen=True, slots=True)
class Credit:
    """A rollout's advantage times a positive, bounded weight for each token: it cannot flip a sign, exceed its cap or
    carry a gradient.

    >>> import numpy as np
    >>> Credit(advantage=-0.5, weight=np.array([1.0, 2.0, 1.0], np.float32), cap=2.0).token_advantage
    array([-0.5, -1. , -0.5], dtype=float32)
    """

    advantage: float
    weight: Floats
    cap: float = 1.0
    floor: float = 1.0

    def __post_init__(self) -> None:
        if type(self.weight) is not np.ndarray or self.weight.dtype != np.float32:
            raise RecordError(f"credit: weight must be a float32 numpy array, got {type(self.weight).__name__}")
        if not np.isfinite(self.advantage):
            raise RecordError(f"credit: the advantage must be finite, got {self.advantage}")
        if not 0 < self.floor <= 1 <= self.cap:
            raise RecordError(f"credit: expected 0 < floor <= 1 <= cap, got floor {self.floor} and cap {self.cap}")
        if self.weight.size and not (
            np.float32(self.floor) <= self.weight.min() <= self.weight.max() <= np.float32(self.cap)
        ):
            raise RecordError(
                f"credit: weights must lie in [{self.floor}, {self.cap}], "
                f"got [{self.weight.min()}, {self.weight.max()}]"
            )

    @property
    def token_advantage(self) -> Floats:
        return (np.float32(self.advantage) * self.weight).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Teacher:
    """What reads a rollout again: a model, and what its prompt holds besides the rollout's own.

    >>> Teacher() == Teacher(context="reference", model="current")
    True
    """

    context: TeacherContext = "reference"
    """The group's credit reference, the reference of the next group that has one, or nothing."""
    model: TeacherModel = "current"
    """The policy as it is now, or as it was when the run began."""


@dataclass(frozen=True, slots=True)
class Imitation:
    """A divergence against a teacher that becomes part of the loss: coefficient * sum_t weight_t D_t / tokens.

    D_t is taken over the teacher's top K, the observed token and the tail, and only the student has a gradient.

    >>> import numpy as np
    >>> Imitation(Teacher(), coefficient=0.1, weight=np.ones(3, np.float32)).divergence
    'reverse_kl'
    """

    teacher: Teacher
    coefficient: float
    weight: Floats
    """One number, zero or more, for each token of the response."""
    divergence: Divergence = "reverse_kl"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.coefficient) and np.isfinite(self.weight).all() and (self.weight >= 0).all()):
            raise RecordError("imitation: coefficient and weights must be finite, and weights zero or more")


@dataclass(frozen=True, slots=True)
class Signal:
    """What a method says of one rollout: credit, and besides it only what the method declares.

    GRPO and SGCD return credit alone: their weights cannot flip a sign, exceed a cap or carry a gradient.

    >>> import numpy as np
    >>> credit = Credit(advantage=1.0, weight=np.ones(2, np.float32))
    >>> Signal(credit, pull=np.array([0.5, -2.0], np.float32)).token_advantage
    array([ 1.5, -1. ], dtype=float32)
    """

    credit: Credit
    pull: Floats | None = None
    """A signed number for each token, added to the advantage."""
    imitate: Imitation | None = None

    def __post_init__(self) -> None:
        num_tokens = len(self.credit.weight)
        if self.pull is not None:
            check_length("signal", "pull", self.pull, num_tokens)
            if not np.isfinite(self.pull).all():
                raise RecordError("signal: pull must be finite at every token")
        if self.imitate is not None:
            check_length("signal", "imitate.weight", self.imitate.weight, num_tokens)

    @property
    def token_advantage(self) -> Floats:
        advantage = self.credit.token_advantage
        return advantage if self.pull is None else (advantage + self.pull).astype(np.float32)


@dataclass(frozen=True, slots=True)
class CreditRecord:
    """What one rollout deserved and the numbers it was read from; None where nothing was scored.

    >>> import numpy as np
    >>> Scored(Credit(advantage=1.0, weight=np.ones(3, np.float32))).features is None
    True
    """

    credit: Credit
    features: Features | None = None
    creditable: Flags | None = None
    """False on masked literals: they keep weight one."""
    saliency: Floats | None = None
    """How much a token belongs to a segment, between 0 and 1."""

    def __post_init__(self) -> None:
        tokens = len(self.credit.weight)
        if self.features is not None:
            check_length("scored", "features", self.features.divergence, tokens)
        for name in ("creditable", "saliency"):
            if getattr(self, name) is not None:
                check_length("scored", name, getattr(self, name), tokens)


def check_length(record: str, name: str, array: NDArray[Any], expected: int) -> None:
    """Refuse an array that is not one number for each token."""
    if len(array) != expected:
        raise RecordError(
            f"{record}: {name} must have {expected} entries, one for each token of the response, got {len(array)}"
        )
