"""What the rollouts of a group deserve, decided while the student reads them, and what that leaves for the record."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sgcd.contrast.reference import ReferenceResult
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import Method
from sgcd.learn.scoring.batch import LossInputs
from sgcd.learn.scoring.student import StudentScores
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.credit_metrics import RolloutCredit
from sgcd.learn.training.teacher_scorer import TeacherBatch
from sgcd.learn.training.timers import StepTimer
from sgcd.records import Floats


@dataclass(slots=True)
class StepCredit:
    """What a batch deserves, one entry for each rollout, and the log-probabilities that its ratios start from."""

    rollout_credits: list[RolloutCredit] = field(default_factory=list[RolloutCredit])
    logprobs: list[Floats] = field(default_factory=list[Floats])
    inputs: list[TeacherInput] = field(default_factory=list[TeacherInput])
    reference_results: list[ReferenceResult] = field(default_factory=list[ReferenceResult])
    """One for each group; empty for a method that needs no reference."""
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    """For the metrics; empty as well."""


class GroupCredit:
    """The rollouts of one group: called with some of them after the other by the training pass, a `Judge`."""

    def __init__(
        self,
        taught: TeacherBatch,
        method: Method,
        trust: SurrogateSettings,
        initial: Sequence[Floats] | None,
        clock: StepTimer,
    ) -> None:
        self._taught = taught
        self._method = method
        self._initial = initial
        self._clock = clock
        rewards = [rollout.reward for rollout in taught.group.rollouts]
        self._advantage = advantages(rewards, trust.baseline, trust.scale_by_std)
        self._deserved: dict[int, RolloutCredit] = {}
        self._logp: dict[int, Floats] = {}

    def __call__(self, part: Sequence[int], marks: StudentScores) -> list[LossInputs]:
        """The advantage within the group, and what the method makes of it for each token."""
        with self._clock.subphase("credit"):
            return [self._one(index, place, marks) for place, index in enumerate(part)]

    def _one(self, index: int, place: int, marks: StudentScores) -> LossInputs:
        seen, advantage = self._taught.inputs[index], float(self._advantage[index])
        own, other = [*(features[place] for features in marks.features), None, None][:2]
        explained = self._method.assign_credit(seen.rollout, advantage, own, seen.creditable)
        shuffled = self._method.assign_credit(seen.rollout, advantage, other, seen.creditable) if other else None
        self._deserved[index] = RolloutCredit(seen.rollout, explained, own, seen.creditable, seen.skip_reason, shuffled)
        self._logp[index] = logp = marks.logprobs[place]
        initial = None if self._initial is None else self._initial[index]
        return LossInputs(seen.rollout, explained.signal.credit.token_advantage, logp, initial)

    def add_to(self, done: StepCredit) -> None:
        """Add what was found, in the order of the rollouts."""
        order = range(len(self._taught.group.rollouts))
        done.rollout_credits += [self._deserved[index] for index in order]
        done.logprobs += [self._logp[index] for index in order]
        done.inputs += self._taught.inputs
        done.reference_results += [self._taught.reference_result] if self._taught.reference_result else []
