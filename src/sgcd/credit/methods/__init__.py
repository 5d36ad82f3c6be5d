"""What a method is: it says, for each rollout, what its tokens deserve, and the trainer never asks how."""

from typing import Protocol

from sgcd.records import Features, Rollout, Signal


class Method(Protocol):
    @property
    def needs_reference(self) -> bool:
        """Whether siblings are contrasted and the teacher scored before `signal` is asked."""
        ...

    def signal(self, rollout: Rollout, advantage: float, features: Features | None) -> Signal: ...
