"""From kept groups to the batch gradient: teachers score, the method assigns credit, the student learns."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.credit.advantage import deal_verdicts
from sgcd.credit.methods import CreditInputs, Method
from sgcd.credit_records import OWN_REFERENCE, Features, Signal, Teacher
from sgcd.learn.policy.teacher_policies import InitialPolicy, TeacherPolicies
from sgcd.learn.scoring.forward import ForwardConfig, score_logprobs, split_micro_batches
from sgcd.learn.scoring.student import StudentScores, score_student_no_grad
from sgcd.learn.scoring.teacher_inputs import TeacherInput, build_reference_metrics
from sgcd.learn.training.context import TrainConfig, scoring_forward_config
from sgcd.learn.training.credit_metrics import RolloutCredit, build_credit_metrics, count_reading_pairs
from sgcd.learn.training.gradient import (
    CreditedGroup,
    GradientAccumulator,
    LossTerms,
    gradient_checkpointing,
    select_terms,
)
from sgcd.learn.training.surrogate import surrogate_advantages
from sgcd.learn.training.teacher_scorer import (
    NEXT_REFERENCE,
    SWAPPED_REFERENCE,
    ReferenceSource,
    ScoredGroup,
    TeacherScorer,
)
from sgcd.learn.training.timers import StepTimer
from sgcd.records import Floats, Group
from sgcd.seeds import derive_seed
from sgcd.storage.credit_metrics import CreditMetrics, ReadingCounts
from sgcd.storage.metrics import ReferenceMetrics


@dataclass(slots=True)
class StepCredit:
    """The credit of a batch, one entry for each rollout, in task order."""

    rollout_credits: list[RolloutCredit] = field(default_factory=list[RolloutCredit])
    teacher_inputs: list[TeacherInput] = field(default_factory=list[TeacherInput])
    reference_results: list[ReferenceResult] = field(default_factory=list[ReferenceResult])
    """One for each group; empty for a method that needs no reference."""
    reading: list[ReadingCounts] | None = None
    """One for each group with a reference, where the step takes a sample of how references are read."""
    credited_groups: list[CreditedGroup] = field(default_factory=list[CreditedGroup])
    """What further updates learn from; empty where a batch has one update."""

    def reference_metrics(self, method: Method) -> ReferenceMetrics | None:
        """For the row of the step; None for a method without teachers."""
        return build_reference_metrics(self.reference_results, self.teacher_inputs) if method.needs else None

    def credit_metrics(self, method: Method) -> CreditMetrics | None:
        """For the row of the step; None for a method without teachers that leaves every weight at one."""
        weighs = any(one.credit.cap > 1 for one in self.rollout_credits)
        if method.needs is None and not weighs and all(one.credit.floor == 1 for one in self.rollout_credits):
            return None
        can_change_weights = method.needs.can_change_weights if method.needs else weighs
        return build_credit_metrics(
            self.rollout_credits,
            can_change_weights,
            method.state_dict(),
            has_teacher=method.needs is not None,
            reading=self.reading,
        )


async def credit_and_accumulate(
    step: int,
    groups: Sequence[Group],
    *,
    references: ReferenceSource,
    accumulator: GradientAccumulator,
    config: TrainConfig,
    method: Method,
    reference_builder: ReferenceBuilder,
    timer: StepTimer,
    policies: TeacherPolicies | None = None,
    reads_references: bool = True,
) -> StepCredit:
    """Score, credit and learn from each group, while the references of the next ones are still being written."""
    policies = policies or TeacherPolicies()
    scorer = TeacherScorer(
        groups=groups,
        needs=method.needs,
        model=accumulator.model,
        policies=policies,
        references=references,
        reference_builder=reference_builder,
        forward_config=scoring_forward_config(config),
        timer=timer,
        samples_reading=takes_reading_sample(step, config),
    )
    result = StepCredit(reading=[] if scorer.samples_reading else None)
    async with scorer:
        with timer.phase("reference") if method.needs else nullcontext():
            if method.needs_whole_step:
                scored_groups = [one async for one in scorer.scored_groups()]
                step_advantages = [compute_advantages(one.group, config, step) for one in scored_groups]
                show_step = partial(show_whole_step, method, scored_groups, step_advantages, step=step)
                await timer.run_in_model_thread("scoring", show_step, accumulator.model, scorer.forward_config)
            async for scored_group in scorer.scored_groups():
                learner = GroupLearner(
                    accumulator=accumulator,
                    method=method,
                    timer=timer,
                    group_advantages=compute_advantages(scored_group.group, config, step),
                    verdict_order=verdict_order(scored_group.group, config, step),
                    step=step,
                    reads_references=reads_references,
                )
                if config.surrogate.kl > 0 and policies.initial is not None:
                    learner.initial_logprobs = await timer.run_in_model_thread(
                        "scoring", _initial_policy_logprobs, policies.initial, scored_group.group, scorer.forward_config
                    )
                learn = learner.accumulate_group_gradient
                rollout_credits = await timer.run_in_model_thread("training", learn, scored_group)
                result.rollout_credits += rollout_credits
                if config.optimizer.updates > 1:
                    result.credited_groups.append(learner.build_credited_group(scored_group, rollout_credits))
                if result.reading is not None and (counts := count_reading_pairs(scored_group, rollout_credits)):
                    result.reading.append(counts)
                result.teacher_inputs += scored_group.inputs
                result.reference_results += [scored_group.reference_result] if scored_group.reference_result else []
    return result


@dataclass(kw_only=True)
class GroupLearner:
    """Learns from one group, in the model's thread."""

    accumulator: GradientAccumulator
    method: Method
    timer: StepTimer
    group_advantages: Sequence[float]
    """One advantage per rollout, relative to its group."""
    verdict_order: Sequence[int] = ()
    """Whose verdict each rollout was dealt; empty where each has its own."""
    reads_references: bool = True
    initial_logprobs: list[Floats] | None = None
    """By the initial policy, where the surrogate has a KL term."""
    step: int = 0

    def accumulate_group_gradient(self, scored_group: ScoredGroup) -> list[RolloutCredit]:
        """Forward, credit and backward for each micro-batch; the credit comes back in the order of the rollouts."""
        rollouts, needs = scored_group.group.rollouts, self.method.needs
        divergence = needs.divergence if needs else "reverse_kl"
        outcomes = scored_group.teacher_outcomes
        imitated_index = list(outcomes).index(needs.imitated) if needs and needs.imitated else None
        rollout_credits: dict[int, RolloutCredit] = {}
        with gradient_checkpointing(self.accumulator.model):
            for indices in split_micro_batches(self.accumulator.model, rollouts, self.accumulator.config):
                micro_batch = [rollouts[index] for index in indices]
                micro_outcomes = [[column[index] for index in indices] for column in outcomes.values()]
                forward = self.accumulator.forward(
                    micro_batch, micro_outcomes, divergence=divergence, imitated_index=imitated_index
                )
                with self.timer.subphase("credit"):
                    for position, index in enumerate(indices):
                        rollout_credits[index] = self._credit_rollout(scored_group, index, forward.scores, position)
                signals = [rollout_credits[index].signal for index in indices]
                terms = select_terms(self._loss_terms, indices)
                self.accumulator.backward(forward, micro_batch, signals, terms=terms, imitated_index=imitated_index)
        return [rollout_credits[index] for index in range(len(rollouts))]

    def build_credited_group(
        self, scored_group: ScoredGroup, rollout_credits: Sequence[RolloutCredit]
    ) -> CreditedGroup:
        """What further updates need of a group that `accumulate_group_gradient` has read."""
        imitated = self.method.needs.imitated if self.method.needs else None
        old_logprobs = [credit.logprobs for credit in rollout_credits if credit.logprobs is not None]
        return CreditedGroup(
            rollouts=scored_group.group.rollouts,
            signals=[credit.signal for credit in rollout_credits],
            terms={**self._loss_terms, "old_logprobs": old_logprobs},
            imitated_outcomes=scored_group.teacher_outcomes[imitated] if imitated else None,
        )

    def _credit_rollout(
        self, scored_group: ScoredGroup, index: int, scores: StudentScores, position: int
    ) -> RolloutCredit:
        """`index` is the rollout's place in its group, `position` the one in its micro-batch."""
        teacher_input = scored_group.inputs[index]
        features = _features_by_teacher(scored_group, scores, position)
        needs = self.method.needs
        inputs = CreditInputs(
            teacher_input.rollout,
            float(self.group_advantages[index]),
            features,
            teacher_input.outside_literals,
            scored_group.group,
            group_advantages=self.group_advantages,
            verdict_order=self.verdict_order,
            logprobs=scores.logprobs[position],
            entropy=scores.entropies[position],
            step=self.step,
            reads_references=self.reads_references,
        )
        # Compared with the swapped teacher, exchanging the two changes little; with the next group's there is no third.
        compare_with = needs.compare_with if needs else "student"
        return RolloutCredit(
            teacher_input.rollout,
            self._assign_credit(inputs),
            features.get(needs.teachers[0]) if needs else None,
            teacher_input.outside_literals,
            skip_reason=teacher_input.skip_reason or ("not_read" if inputs.unread(needs) else ""),
            next_signal=self._assign_under(NEXT_REFERENCE, inputs) if compare_with != "next_reference" else None,
            swapped_signal=self._assign_under(SWAPPED_REFERENCE, inputs) if compare_with == "student" else None,
            logprobs=scores.logprobs[position],
        )

    def _assign_credit(self, inputs: CreditInputs) -> Signal:
        return self.method.assign_credit(inputs.without_unread(self.method.needs))

    def _assign_under(self, teacher: Teacher, inputs: CreditInputs) -> Signal | None:
        """The credit under another reference, where both were scored. All other teachers stay as they are."""
        features = inputs.features.get(teacher)
        if features is None or inputs.reference_features is None:
            return None
        return self._assign_credit(replace(inputs, features={**inputs.features, OWN_REFERENCE: features}))

    @property
    def _loss_terms(self) -> LossTerms:
        return {} if self.initial_logprobs is None else {"initial_logprobs": self.initial_logprobs}


def takes_reading_sample(step: int, config: TrainConfig) -> bool:
    """Whether the rollouts of a step are also scored under the swapped and the next group's reference."""
    every = config.scoring.reading_every
    return bool(every) and (step == 1 or step % every == 0)


def compute_advantages(group: Group, config: TrainConfig, step: int) -> Sequence[float]:
    """Returns each rollout's advantage; `control: permuted` shuffles them within the group."""
    values = surrogate_advantages(group, config.surrogate, config.siblings.limits.tokens)
    order = verdict_order(group, config, step)
    return [float(value) for value in (values[order] if order else values)]


def verdict_order(group: Group, config: TrainConfig, step: int) -> list[int]:
    """Whose verdict each rollout has under `control: permuted`; empty elsewhere."""
    if config.control != "permuted":
        return []
    return deal_verdicts(len(group.rollouts), derive_seed(config.seed, "permuted", step, group.task.id))


def show_whole_step(
    method: Method,
    scored_groups: Sequence[ScoredGroup],
    step_advantages: Sequence[Sequence[float]],
    model: Any,
    forward_config: ForwardConfig,
    *,
    step: int,
) -> None:
    """Show the method the whole step. Where it has teachers, this takes a forward pass of the student."""
    credit_inputs: list[CreditInputs] = []
    for scored_group, group_advantages in zip(scored_groups, step_advantages, strict=True):
        scores = None
        if method.needs:
            outcomes = list(scored_group.teacher_outcomes.values())
            scores = score_student_no_grad(
                model, scored_group.group.rollouts, outcomes, divergence=method.needs.divergence, config=forward_config
            )
        for index, teacher_input in enumerate(scored_group.inputs):
            features = _features_by_teacher(scored_group, scores, index) if scores else {}
            credit_inputs.append(
                CreditInputs(
                    teacher_input.rollout,
                    group_advantages[index],
                    features,
                    teacher_input.outside_literals,
                    scored_group.group,
                    group_advantages=group_advantages,
                    logprobs=scores.logprobs[index] if scores else None,
                    entropy=scores.entropies[index] if scores else None,
                    step=step,
                )
            )
    method.observe_step(credit_inputs)


def _initial_policy_logprobs(
    initial_policy: InitialPolicy, group: Group, forward_config: ForwardConfig
) -> list[Floats]:
    with initial_policy.active() as model:
        return score_logprobs(model, group.rollouts, forward_config)


def _features_by_teacher(scored_group: ScoredGroup, scores: StudentScores, position: int) -> dict[Teacher, Features]:
    """Returns one rollout's features by teacher; teachers that did not score it are absent."""
    by_teacher = zip(scored_group.teacher_outcomes, scores.features, strict=True)
    return {teacher: features for teacher, column in by_teacher if (features := column[position]) is not None}
