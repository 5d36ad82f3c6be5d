"""The records of credit: features of tokens, weights, and what a method returns for a rollout."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sgcd.errors import RecordError
from sgcd.records import Flags, Floats, check_length
from sgcd.settings import UNDECIDED_ENTROPY, Divergence, TeacherContext, TeacherModel

NoSegmentReason = Literal["", "no_reference", "few_tokens", "flat", "nonfinite"]


@dataclass(frozen=True, slots=True)
class Features:
    """The results of scoring: numbers for each token of a response, as arrays without a gradient.

    >>> import numpy as np
    >>> zero = np.zeros(3, np.float32)
    >>> Features(divergence=zero, teacher_entropy=zero, teacher_logprob_gap=zero).length
    3
    """

    divergence: Floats
    """d, between student and teacher, or between two teachers, over the teacher's top-K, the observed token and the
    tail."""
    teacher_entropy: Floats
    """H over the same outcomes."""
    teacher_logprob_gap: Floats
    """log q(y) - log p(y) of the sampled token; p is the student's or the other teacher's."""
    student_entropy: Floats | None = None
    """H of the student over the whole vocabulary; None in records of older runs."""

    def __post_init__(self) -> None:
        for name in ("teacher_entropy", "teacher_logprob_gap", "student_entropy"):
            if getattr(self, name) is not None:
                check_length("features", name, getattr(self, name), len(self.divergence))

    @property
    def length(self) -> int:
        return len(self.divergence)

    def undecided_mask(self, min_entropy: float = UNDECIDED_ENTROPY) -> Flags:
        """True where the student's entropy is at least `min_entropy`; everywhere, where it is not known."""
        if self.student_entropy is None or not min_entropy:
            return np.ones(self.length, np.bool_)
        return self.student_entropy >= np.float32(min_entropy)


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
        check_length("credit", "weight", self.weight, self.weight.size)
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
    """A teacher of a method: a model, and the context that its prompt gets in addition to the rollout's prompt.

    >>> Teacher()
    Teacher(context='reference', model='current')
    """

    context: TeacherContext = "reference"
    """reference: the group's credit reference; swapped: the same with success and failure exchanged; next_reference:
    that of the next group that has one; leave_one_out: one written without the rollout itself; neutral: a text as long
    as the reference that says nothing; sibling: another sibling's success, step by step; answer: the last answer of
    such a sibling, a leak; skill: one text for all tasks; none: no text."""
    model: TeacherModel = "current"
    """current: the policy as it is now; average: a moving average of it; initial: the policy when the run began;
    outside: another model with the same tokenizer."""


OWN_REFERENCE = Teacher()
"""The method's teacher: the policy itself, which reads the group's own reference."""


@dataclass(frozen=True, slots=True)
class Imitation:
    """A divergence against a teacher that becomes part of the loss: coefficient * sum_t weight_t D_t / tokens.

    D_t is taken over the teacher's top K, the observed token and the tail, and only the student has a gradient.

    >>> import numpy as np
    >>> Imitation(OWN_REFERENCE, coefficient=0.1, weight=np.ones(3, np.float32)).divergence
    'reverse_kl'
    """

    teacher: Teacher
    coefficient: float
    weight: Floats
    """One number, zero or more, for each token of the response."""
    divergence: Divergence = "reverse_kl"

    def __post_init__(self) -> None:
        if self.divergence not in get_args(Divergence):
            raise RecordError(
                f"imitation: divergence must be one of {', '.join(get_args(Divergence))}, got {self.divergence!r}"
            )
        if not (np.isfinite(self.coefficient) and np.isfinite(self.weight).all() and (self.weight >= 0).all()):
            raise RecordError("imitation: coefficient and weights must be finite, and weights zero or more")


@dataclass(frozen=True, slots=True)
class Span:
    """A segment [start, stop) of a response. It starts at a spike, and its creditable tokens share one saliency.

    >>> Span(start=10, stop=18, saliency=1.0).stop
    18
    """

    start: int
    stop: int
    saliency: float


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one rollout.

    >>> import numpy as np
    >>> saliency = np.array([0, 1, 1], np.float32)
    >>> Segments(saliency, spans=(Span(1, 3, 1.0),), num_valid=3, num_nonfinite=0).reason
    ''
    """

    saliency: Floats
    """s in [0, 1], one for each token of the response."""
    spans: tuple[Span, ...]
    num_valid: int
    """Tokens that the segmenter used: sampled by the policy, creditable, finite."""
    num_nonfinite: int
    """Policy tokens with a NaN or an infinity."""
    reason: NoSegmentReason = ""
    """Why the rollout cannot have a segment; empty when it can."""


NO_SEGMENTS = Segments(np.zeros(0, np.float32), (), num_valid=0, num_nonfinite=0)
"""Of a method without segments."""


@dataclass(frozen=True, slots=True)
class Signal:
    """The result of a method for one rollout: credit, and the terms that the method declares.

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
    segments: Segments = NO_SEGMENTS
    """What the weights were made from."""
    num_clipped: int = 0
    """Tokens whose weight was clipped to the cap."""

    def __post_init__(self) -> None:
        num_tokens = len(self.credit.weight)
        if self.pull is not None:
            if type(self.pull) is not np.ndarray or self.pull.dtype.kind not in "fiu":
                raise RecordError(f"signal: pull must be a numpy array of numbers, got {type(self.pull).__name__}")
            check_length("signal", "pull", self.pull, num_tokens)
            if not np.isfinite(self.pull).all():
                raise RecordError("signal: pull must be finite at every token")
        if self.imitate is not None:
            check_length("signal", "imitate.weight", self.imitate.weight, num_tokens)
        if len(self.segments.saliency):
            check_length("signal", "segments.saliency", self.segments.saliency, num_tokens)

    @property
    def saliency(self) -> Floats:
        """How much each token belongs to a segment; zero for a method without segments."""
        return self.segments.saliency if len(self.segments.saliency) else np.zeros_like(self.credit.weight)

    @property
    def token_advantage(self) -> Floats:
        advantage = self.credit.token_advantage
        return advantage if self.pull is None else (advantage + self.pull).astype(np.float32)


@dataclass(frozen=True, slots=True)
class CreditRecord:
    """The credit of one rollout and the numbers that it was computed from; None where nothing was scored.

    >>> import numpy as np
    >>> CreditRecord(Credit(advantage=1.0, weight=np.ones(3, np.float32))).features is None
    True
    """

    credit: Credit
    features: Features | None = None
    outside_literals: Flags | None = None
    """False on masked literals: they keep weight one."""
    saliency: Floats | None = None
    """How much a token belongs to a segment, between 0 and 1."""

    def __post_init__(self) -> None:
        tokens = len(self.credit.weight)
        if self.features is not None:
            check_length("credit record", "features", self.features.divergence, tokens)
        for name in ("outside_literals", "saliency"):
            if getattr(self, name) is not None:
                check_length("credit record", name, getattr(self, name), tokens)
