"""The trainer runs a step: it collects groups, computes credit and updates the policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgcd.act.siblings import CollectedGroups, collect_mixed_groups
from sgcd.learn.policy.teacher_policies import InitialPolicy, MovingAverage
from sgcd.learn.scoring.forward import sampler_mismatch
from sgcd.learn.training.audit import ContextAudit, count_foreign_tokens
from sgcd.learn.training.context import RunContext, TrainConfig, TrainerCallback, training_forward_config
from sgcd.learn.training.gradient import GradientAccumulator, accumulate_further_update
from sgcd.learn.training.optimizer import learning_rate, mean_over_updates, optimizer_step
from sgcd.learn.training.progress import RunProgress
from sgcd.learn.training.rollout_metrics import all_groups, rollout_metrics
from sgcd.learn.training.step import StepCredit, credit_and_accumulate, takes_reading_sample
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.teacher_scorer import ReferencePrefetcher
from sgcd.learn.training.timers import peak_memory
from sgcd.measure import validity
from sgcd.measure.reading import why_not_read
from sgcd.records import Group, Rollout
from sgcd.seeds import derive_seed
from sgcd.storage.metrics import OptimizerMetrics, StepMetrics, UpdateMetrics
from sgcd.storage.run_folder import RunFolder

NO_MIXED_GROUP = "no mixed group"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How far a run is, and how many steps of that were done by this call."""

    step: int
    num_new_steps: int


class Trainer:
    """The trainer has one asyncio loop; one thread uses the model. Its result depends only on recipe and folder."""

    def __init__(
        self, config: TrainConfig, context: RunContext, callback: TrainerCallback, *, folder: RunFolder
    ) -> None:
        self.config = config
        self.context = context
        self.callback = callback
        self.folder = folder
        self.model: Any = context.policy.model
        self.teacher_policies = context.teacher_policies
        self.progress = RunProgress(config, context, callback, folder=folder)
        self.timer = self.progress.timer
        self.metrics: list[StepMetrics] = []
        """All rows of metrics so far; measure/ judges the newest."""

    async def run(self) -> TrainResult:
        """Trains from the newest checkpoint, or from the start, to `config.steps`."""
        async with self.context.open_endpoints(self.folder):
            return await self._run()

    async def _run(self) -> TrainResult:
        progress = self.progress
        await progress.run_in_model_thread(self._set_up_and_restore)
        start = progress.state.step
        if not self.folder.checkpoint_steps():
            await progress.evaluate_if_due()
            await progress.save_if_due()
        for step in range(start + 1, self.config.steps + 1):
            await self.train_step(step)
        await progress.export_policy()
        return TrainResult(progress.state.step, progress.state.step - start)

    def _set_up_and_restore(self) -> None:
        needs = self.context.method.needs
        if self.config.surrogate.kl > 0 or (needs and needs.needs_model("initial")):
            self.teacher_policies = replace(self.teacher_policies, initial=InitialPolicy(self.model))
        if needs and needs.needs_model("average"):
            self.progress.average = MovingAverage(self.model, self.config.teacher.decay)
            self.teacher_policies = replace(self.teacher_policies, average=self.progress.average)
        self.audit = ContextAudit(self.model)
        self.progress.restore(self.config.optimizer)
        self.context.method.load_state_dict(self.progress.state.method)
        self.metrics = self.folder.read_metrics()

    # -- one step -----------------------------------------------------------------------------------------------------

    async def train_step(self, step: int) -> None:
        """Collect mixed groups, learn from them, write the record, evaluate and save where that is due."""
        context, config = self.context, self.config
        needs = context.method.needs
        builder = context.reference_builder if needs and needs.needs_references else None
        with_swapped = needs is not None and (needs.needs_swapped or takes_reading_sample(step, config))
        async with ReferencePrefetcher(builder, with_swapped=with_swapped) as prefetcher:
            with self.timer.phase("sampling"):
                collected = await self._collect_groups(step, prefetcher)
            with self.timer.phase("saving"):
                groups = all_groups(collected)
                is_kept = [index < len(collected.kept) for index in range(len(groups))]
                self.folder.write_rollouts(step, groups, is_kept)
            update_metrics = await self._update_policy(step, collected.kept, prefetcher)
        self.progress.state = replace(
            self.progress.state, step=step, cursor=collected.cursor, method=context.method.state_dict()
        )
        await self.progress.evaluate_if_due()
        row = StepMetrics.build(
            step=step,
            rollouts=rollout_metrics(collected),
            update=update_metrics,
            peak_memory=peak_memory(),
            endpoint_usage=context.pop_endpoint_usage(),
            seconds=self.timer.pop_seconds(),
        )
        recent = [*self.metrics[-validity.WINDOW_STEPS :], row]
        invalid = validity.newest_invalid_reasons(recent, step == config.steps)
        row = row.model_copy(update={"invalid": invalid})
        self.folder.append_metrics(row)
        self.metrics.append(row)
        self.callback.on_step(row)
        await self.progress.save_if_due()

    async def _collect_groups(self, step: int, prefetcher: ReferencePrefetcher) -> CollectedGroups:
        context, config = self.context, self.config
        return await collect_mixed_groups(
            self.progress.state.cursor,
            config.siblings,
            context.play_context(config.siblings.limits),
            seed=config.seed,
            step=step,
            on_mixed_group=prefetcher.prefetch,
        )

    async def _update_policy(
        self, step: int, groups: Sequence[Group], prefetcher: ReferencePrefetcher
    ) -> UpdateMetrics:
        """Score, credit and learn from what was kept. Without a mixed group nothing is learned."""
        config, context = self.config, self.context
        if not groups:
            return UpdateMetrics(lr=learning_rate(config.optimizer, step), skipped=NO_MIXED_GROUP, updates=0)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        accumulator = self._empty_gradient(rollouts)
        step_credit = await credit_and_accumulate(
            step,
            groups,
            references=prefetcher,
            accumulator=accumulator,
            config=config,
            method=context.method,
            reference_builder=context.reference_builder,
            timer=self.timer,
            policies=self.teacher_policies,
            reads_references=not (context.method.needs and why_not_read(self.metrics)),
        )
        with self.timer.phase("credit"):
            reference_metrics = step_credit.reference_metrics(context.method)
            credit_metrics = step_credit.credit_metrics(context.method)
        optimizer_metrics = await self.timer.run_in_model_thread(
            "training", self._update_on_batch, step, accumulator, step_credit
        )
        with self.timer.phase("saving"):
            self._write_credit(step, step_credit)
        logprobs = [credit.logprobs for credit in step_credit.rollout_credits if credit.logprobs is not None]
        mean_mismatch, max_mismatch = sampler_mismatch(rollouts, logprobs)
        return UpdateMetrics(
            **dict(optimizer_metrics),
            sampler_gap_mean=mean_mismatch,
            sampler_gap_max=max_mismatch,
            foreign=sum(count_foreign_tokens(rollout, context.policy.chat) for rollout in rollouts),
            in_graph=self.audit.count_unexpected(rollouts, config.optimizer.updates),
            reference=reference_metrics,
            credit=credit_metrics,
        )

    def _empty_gradient(self, rollouts: Sequence[Rollout]) -> GradientAccumulator:
        """Nothing yet of the gradient of a batch."""
        return GradientAccumulator(
            model=self.model,
            surrogate=self.config.surrogate,
            size=BatchSize.of(rollouts, self.config.siblings.limits.tokens),
            config=training_forward_config(self.config),
        )

    def _update_on_batch(
        self, step: int, first_gradient: GradientAccumulator, step_credit: StepCredit
    ) -> OptimizerMetrics:
        """All updates of a step; the gradient of the first is there already."""
        config, updates = self.config, list[OptimizerMetrics]()
        updates.append(optimizer_step(self.progress.optimizer, first_gradient, config.optimizer, step))
        rollouts = [credit.rollout for credit in step_credit.rollout_credits]
        for update in range(1, config.optimizer.updates):
            gradient = self._empty_gradient(rollouts)
            seed = derive_seed(config.seed, "update", step, update)
            accumulate_further_update(gradient, step_credit.credited_groups, seed)
            updates.append(optimizer_step(self.progress.optimizer, gradient, config.optimizer, step))
        if self.progress.average:
            self.progress.average.update(self.progress.optimizer)
        return mean_over_updates(updates)

    def _write_credit(self, step: int, step_credit: StepCredit) -> None:
        records = {credit.rollout.name: credit.record for credit in step_credit.rollout_credits}
        self.folder.write_credit(step, records)
        if step_credit.reference_results:
            self.folder.write_references(step, [result.to_json() for result in step_credit.reference_results])
