"""Scores batches of recorded rollouts with a policy: one pass for each teacher, one for the student, no gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.credit.methods import CreditInputs, Method
from sgcd.credit_records import Credit, Signal, Teacher
from sgcd.errors import MethodFault
from sgcd.learn.policy.load import Policy
from sgcd.learn.policy.teacher_policies import TeacherPolicies
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.training.credit_metrics import RolloutCredit, build_credit_metrics, count_reading_pairs
from sgcd.learn.training.teacher_scorer import ScoredGroup, TeacherScorer
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.recorded.scores import BatchScores, student_record, unscored_record
from sgcd.records import Group
from sgcd.storage.credit_metrics import CreditMetrics


@dataclass(frozen=True, slots=True)
class WrittenReferences:
    """References that are written already."""

    results: dict[str, ReferenceResult]

    async def get(self, group: Group) -> ReferenceResult | None:
        return self.results[group.task.id]


@dataclass(slots=True)
class PolicyScorer:
    """Scores with one policy, as the method needs it."""

    policy: Policy
    method: Method
    builder: ReferenceBuilder
    forward_config: ForwardConfig
    policies: TeacherPolicies
    """An outside teacher and a skill text, where the method reads them."""
    thread: ModelThread = field(default_factory=ModelThread)

    def __post_init__(self) -> None:
        needs = self.method.needs
        if needs and (needs.needs_model("initial") or needs.needs_model("average")):
            raise MethodFault(
                "method: it compares the policy with an earlier one, and recorded rollouts have no earlier one; "
                "expected a method whose teachers are the policy itself or an outside one, such as method.name=sgcd"
            )

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        return self.method.needs.teachers if self.method.needs else ()

    async def score(self, groups: Sequence[Group], results: Sequence[ReferenceResult]) -> BatchScores:
        """Score the groups of a batch under every teacher of the method, and sample how references are read."""
        scores = BatchScores(features={teacher: {} for teacher in self.teachers})
        by_task = {group.task.id: result for group, result in zip(groups, results, strict=True)}
        scorer = TeacherScorer(
            groups=groups,
            needs=self.method.needs,
            model=self.policy.model,
            policies=self.policies,
            references=WrittenReferences(by_task),
            reference_builder=self.builder,
            forward_config=self.forward_config,
            timer=StepTimer(self.thread, lambda _: None),
            samples_reading=True,
        )
        async with scorer:
            async for scored_group in scorer.scored_groups():
                self._add_group(scores, scored_group)
        return scores

    def measure(self, inputs: Sequence[CreditInputs], signals: Sequence[Signal], scores: BatchScores) -> CreditMetrics:
        """The metrics of a batch's credit, as of a step's."""
        entries = [
            RolloutCredit(
                one.rollout,
                signal,
                one.features.get(self.teachers[0]) if self.teachers else None,
                np.ones(len(one.rollout.response), np.bool_) if one.outside_literals is None else one.outside_literals,
                scores.skip_reasons.get(one.rollout.name) or ("not_read" if one.unread(self.method.needs) else ""),
            )
            for one, signal in zip(inputs, signals, strict=True)
        ]
        can_change = self.method.needs.can_change_weights if self.method.needs else True
        return build_credit_metrics(entries, can_change, self.method.state_dict(), reading=scores.reading_counts)

    def _add_group(self, scores: BatchScores, scored_group: ScoredGroup) -> None:
        """Read a group as the student, and keep what both leave."""
        needs, rollouts = self.method.needs, scored_group.group.rollouts
        student = score_student_no_grad(
            self.policy.model,
            rollouts,
            [scored_group.teacher_outcomes[teacher] for teacher in self.teachers],
            divergence=needs.divergence if needs else "reverse_kl",
            config=self.forward_config,
        )
        entries: list[RolloutCredit] = []
        for index, (rollout, teacher_input) in enumerate(zip(rollouts, scored_group.inputs, strict=True)):
            num_tokens = len(rollout.response)
            for teacher, column in zip(self.teachers, student.features, strict=True):
                record = unscored_record(num_tokens, column[index], teacher_input.outside_literals)
                scores.features[teacher][rollout.name] = record
            scores.student[rollout.name] = student_record(student.logprobs[index], student.entropies[index])
            if teacher_input.skip_reason:
                scores.skip_reasons[rollout.name] = teacher_input.skip_reason
            unit = Signal(Credit(0.0, np.ones(num_tokens, np.float32)))
            entries.append(
                RolloutCredit(rollout, unit, None, teacher_input.outside_literals, logprobs=student.logprobs[index])
            )
        if counts := count_reading_pairs(scored_group, entries):
            scores.reading_counts.append(counts)
