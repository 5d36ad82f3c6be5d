"""What the rollouts of a group deserve, decided while the student reads them, and what that leaves for the record."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sgcd.contrast.refer import Referred
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import Method
from sgcd.learn.batch import Example
from sgcd.learn.clock import Clock
from sgcd.learn.contrasted import Contrasted
from sgcd.learn.ledger import Deserved
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.student import Marks
from sgcd.learn.teaching import Taught
from sgcd.records import Floats


@dataclass(slots=True)
class Credited:
    """What a batch deserves, one entry for each rollout, and the log-probabilities that its ratios start from."""

    deserved: list[Deserved] = field(default_factory=list[Deserved])
    logp: list[Floats] = field(default_factory=list[Floats])
    seen: list[Contrasted] = field(default_factory=list[Contrasted])
    referred: list[Referred] = field(default_factory=list[Referred])
    """One for each group; empty for a method that needs no reference."""
    told: dict[str, Any] = field(default_factory=dict[str, Any])
    """For the metrics; empty as well."""


class Crediting:
    """The rollouts of one group: called with some of them after the other by the training pass, a `Judge`."""

    def __init__(
        self,
        taught: Taught,
        method: Method,
        trust: SurrogateSettings,
        initial: Sequence[Floats] | None,
        clock: Clock,
    ) -> None:
        self._taught = taught
        self._method = method
        self._initial = initial
        self._clock = clock
        rewards = [rollout.reward for rollout in taught.group.rollouts]
        self._advantage = advantages(rewards, trust.baseline, trust.std)
        self._deserved: dict[int, Deserved] = {}
        self._logp: dict[int, Floats] = {}

    def __call__(self, part: Sequence[int], marks: Marks) -> list[Example]:
        """The advantage within the group, and what the method makes of it for each token."""
        with self._clock.part("credit"):
            return [self._one(index, place, marks) for place, index in enumerate(part)]

    def _one(self, index: int, place: int, marks: Marks) -> Example:
        seen, advantage = self._taught.seen[index], float(self._advantage[index])
        own, other = [*(features[place] for features in marks.features), None, None][:2]
        explained = self._method.explain(seen.rollout, advantage, own, seen.creditable)
        shuffled = self._method.explain(seen.rollout, advantage, other, seen.creditable) if other else None
        self._deserved[index] = Deserved(seen.rollout, explained, own, seen.creditable, seen.without, shuffled)
        self._logp[index] = logp = marks.logp[place]
        initial = None if self._initial is None else self._initial[index]
        return Example(seen.rollout, explained.signal.credit.token_advantage, logp, initial)

    def into(self, done: Credited) -> None:
        """Add what was found, in the order of the rollouts."""
        order = range(len(self._taught.group.rollouts))
        done.deserved += [self._deserved[index] for index in order]
        done.logp += [self._logp[index] for index in order]
        done.seen += self._taught.seen
        done.referred += [self._taught.referred] if self._taught.referred else []
