"""From kept siblings to a gradient: what each rollout deserves is decided in the very pass that it is learnt in."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from sgcd.learn.policy.initial_policy import InitialPolicy
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.scoring.teacher_inputs import reference_metrics
from sgcd.learn.training.context import RunContext, TrainConfig
from sgcd.learn.training.credit_metrics import credit_metrics, shuffled_overlap_metrics
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.group_credit import GroupCredit, StepCredit
from sgcd.learn.training.reference_prefetcher import ReferencePrefetcher
from sgcd.learn.training.teacher_scorer import TeacherBatch, TeacherScorer
from sgcd.learn.training.timers import StepTimer
from sgcd.records import Floats, Group


class GradientStep:
    """Knows of the method only what it needs: nothing, or features under a reference."""

    def __init__(self, plan: TrainConfig, living: RunContext, clock: StepTimer) -> None:
        self._plan = plan
        self._living = living
        self._clock = clock
        self._model: Any = living.policy.model

    async def compute_gradients(
        self,
        step: int,
        groups: Sequence[Group],
        referring: ReferencePrefetcher,
        gradient: GradientAccumulator,
        initial: InitialPolicy | None = None,
    ) -> StepCredit:
        """Each group is taught, credited and added to the gradient while the writers of the next are waited for."""
        needs, clock, done = self._living.method.needs, self._clock, StepCredit()
        divergence = needs.divergence if needs else "reverse_kl"
        async with TeacherScorer(step, groups, referring, self._plan, self._living, clock) as teaching:
            with clock.phase("reference") if needs else nullcontext():
                if needs and needs.whole_step:
                    await self._calibrate([taught async for taught in teaching.scored_groups()])
                async for taught in teaching.scored_groups():
                    start = await self._initial(taught.group, initial)
                    crediting = GroupCredit(taught, self._living.method, self._plan.surrogate, start, clock)
                    given = taught.group.rollouts, crediting, taught.teacher_topk, divergence
                    await clock.run_in_model_thread("training", gradient.accumulate, *given)
                    crediting.add_to(done)
        with clock.phase("credit"):
            if needs:
                done.metrics = self._told(done, needs.can_change_weights, teaching.reads_shuffled)
        return done

    async def _initial(self, group: Group, initial: InitialPolicy | None) -> list[Floats] | None:
        """What the policy said as the run began, where the surrogate has a KL term."""
        if initial is None:
            return None
        scoring = self._plan.scoring
        how = self._plan.sampler.temperature, scoring.micro_batch_tokens, scoring.logits_bytes
        return await self._clock.run_in_model_thread("scoring", initial.score_logprobs, group.rollouts, *how)

    async def _calibrate(self, whole: Sequence[TeacherBatch]) -> None:
        """A pass of the student by itself, so that the method sees a batch before any rollout is credited."""
        await self._clock.run_in_model_thread("scoring", self._look, whole)

    def _look(self, whole: Sequence[TeacherBatch]) -> None:
        method, scoring, heat = self._living.method, self._plan.scoring, self._plan.sampler.temperature
        assert method.needs is not None
        batch: list[Any] = []
        for taught in whole:
            how = heat, scoring.micro_batch_tokens, method.needs.divergence, scoring.logits_bytes
            features = score_student_no_grad(
                self._model, taught.group.rollouts, taught.teacher_topk[:1], *how
            ).features[0]
            batch += [(s.rollout, f, s.creditable) for s, f in zip(taught.inputs, features, strict=True) if f]
        method.calibrate(batch)

    def _told(self, done: StepCredit, weighs: bool, shuffled: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"reference": reference_metrics(done.reference_results, done.inputs)}
        told["credit"] = credit_metrics(done.rollout_credits, weighs)
        told["credit"]["method"] = self._living.method.state_dict()
        if shuffled:
            told["credit"]["shuffled"] = shuffled_overlap_metrics(done.rollout_credits)
        return told
