"""What a method is: it says, for each rollout, what its tokens deserve, and the trainer never asks how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sgcd.credit.segments import Segments
from sgcd.credit.settings import Divergence
from sgcd.records import Features, Flags, Rollout, Signal


@dataclass(frozen=True, slots=True)
class Needs:
    """What is scored before a method is asked: the student against a teacher that was shown a reference.

    >>> Needs(k=100, divergence="reverse_kl").weighs
    True
    """

    k: int
    """The teacher's likeliest ids, told apart; see credit/divergence.py."""
    divergence: Divergence
    can_change_weights: bool = True
    """Whether any weight can come of it; where gamma is zero none can, and health judges none."""
    whole_step: bool = False
    """Whether it has to see all features of a step (`calibrate`) before it is asked about any rollout."""


@dataclass(frozen=True, slots=True)
class CreditResult:
    """A signal with what led to it."""

    signal: Signal
    segments: Segments
    """`segments.reason` says why there could be none."""
    num_clipped: int = 0
    """Tokens whose weight a bound held back."""


class Method(Protocol):
    @property
    def needs(self) -> Needs | None:
        """None: siblings are not contrasted, no teacher is scored, and features are None."""
        ...

    def signal(
        self, rollout: Rollout, advantage: float, features: Features | None, creditable: Flags | None = None
    ) -> Signal:
        """`features` is None where a rollout has no reference; `creditable` is False on masked literals."""
        ...

    def assign_credit(
        self, rollout: Rollout, advantage: float, features: Features | None, creditable: Flags | None = None
    ) -> CreditResult:
        """The same signal, for whoever wants to see how it came about."""
        ...

    def calibrate(self, batch: Sequence[tuple[Rollout, Features, Flags | None]]) -> None:
        """A step's scored rollouts, before any of them is asked about; called where `needs.whole` asks for it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the method, as plain JSON."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From what `state` gave."""
        ...
