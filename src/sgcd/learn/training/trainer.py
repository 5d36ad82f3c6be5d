"""The trainer runs a step: it collects groups, computes credit, updates the policy, evaluates and saves."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sgcd.act.siblings import CollectedGroups, collect_mixed_groups
from sgcd.errors import FolderError
from sgcd.learn.policy import checkpoint
from sgcd.learn.policy.checkpoint import BestStep, TrainerState
from sgcd.learn.policy.initial_policy import InitialPolicy
from sgcd.learn.policy.load import save_policy
from sgcd.learn.scoring.forward import sampler_mismatch
from sgcd.learn.training.audit import ContextAudit, count_foreign_tokens
from sgcd.learn.training.context import RunContext, TrainConfig, TrainerCallback
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.optimizer import build_optimizer, learning_rate, optimizer_step
from sgcd.learn.training.rollout_metrics import all_groups, rollout_metrics
from sgcd.learn.training.step import StepCredit, compute_gradients, training_forward_config
from sgcd.learn.training.teacher_scorer import ReferencePrefetcher
from sgcd.learn.training.timers import StepTimer, peak_memory, run_in_model_thread
from sgcd.measure import validity
from sgcd.measure.evaluate import evaluate_policy, held_out_tasks
from sgcd.measure.summary import summarise_evaluation
from sgcd.records import Group
from sgcd.storage.atomic import SCHEMA, atomic_folder
from sgcd.storage.manifest import find_folder_damage, write_folder_manifest
from sgcd.storage.metrics import StepMetrics, UpdateMetrics
from sgcd.storage.run_folder import TRAINED_FILE, RunFolder
from sgcd.storage.verify import check_resumable_state, remove_damaged_best

_T = TypeVar("_T")
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
        self.initial_policy: InitialPolicy | None = None
        self.timer = StepTimer(context.model_thread, callback.on_phase)
        self.state = TrainerState()
        self.recent_metrics: list[StepMetrics] = []
        """The newest rows of metrics, as many as measure/validity.py judges together."""

    async def run(self) -> TrainResult:
        """Trains from the newest checkpoint, or from the start, to `config.steps`."""
        async with self.context.open_endpoints(self.folder):
            return await self._run()

    async def _run(self) -> TrainResult:
        await self._run_in_model_thread(self._set_up_and_restore)
        start = self.state.step
        if not self.folder.checkpoint_steps():
            await self._evaluate_if_due()
            await self._save_if_due()
        for step in range(start + 1, self.config.steps + 1):
            await self.train_step(step)
        if not has_exported(self.folder, self.state.step):
            with self.timer.phase("saving"):
                await self._run_in_model_thread(self._export_policy)
        return TrainResult(self.state.step, self.state.step - start)

    async def _run_in_model_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """Do something with the model, in its thread."""
        return await run_in_model_thread(self.context.model_thread, function, *args)

    # -- one step -----------------------------------------------------------------------------------------------------

    async def train_step(self, step: int) -> None:
        """Collect mixed groups, learn from them, write the record, evaluate and save where that is due."""
        context, config = self.context, self.config
        needs = context.method.needs
        builder = context.reference_builder if needs and needs.needs_references else None
        async with ReferencePrefetcher(builder) as prefetcher:
            with self.timer.phase("sampling"):
                collected = await self._collect_groups(step, prefetcher)
            with self.timer.phase("saving"):
                groups = all_groups(collected)
                is_kept = [index < len(collected.kept) for index in range(len(groups))]
                self.folder.write_rollouts(step, groups, is_kept)
            update_metrics = await self._update_policy(step, collected.kept, prefetcher)
        self.state = replace(self.state, step=step, cursor=collected.cursor, method=context.method.state_dict())
        await self._evaluate_if_due()
        row = StepMetrics.build(
            step=step,
            rollouts=rollout_metrics(collected),
            update=update_metrics,
            peak_memory=peak_memory(),
            endpoint_usage=context.pop_endpoint_usage(),
            seconds=self.timer.pop_seconds(),
        )
        invalid = validity.newest_invalid_reasons([*self.recent_metrics, row], step == config.steps)
        row = row.model_copy(update={"invalid": invalid})
        self.folder.append_metrics(row)
        self.recent_metrics = [*self.recent_metrics, row][-validity.WINDOW_STEPS :]
        self.callback.on_step(row)
        await self._save_if_due()

    async def _collect_groups(self, step: int, prefetcher: ReferencePrefetcher) -> CollectedGroups:
        context, config = self.context, self.config
        return await collect_mixed_groups(
            self.state.cursor,
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
            return UpdateMetrics(lr=learning_rate(config.optimizer, step), skipped=NO_MIXED_GROUP)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        accumulator = GradientAccumulator(
            model=self.model,
            surrogate=config.surrogate,
            num_tokens=sum(rollout.num_policy_tokens for rollout in rollouts),
            config=training_forward_config(config),
        )
        step_credit = await compute_gradients(
            step,
            groups,
            references=prefetcher,
            accumulator=accumulator,
            config=config,
            method=context.method,
            reference_builder=context.reference_builder,
            timer=self.timer,
            initial_policy=self.initial_policy,
        )
        with self.timer.phase("credit"):
            reference_metrics = step_credit.reference_metrics(context.method)
            credit_metrics = step_credit.credit_metrics(context.method)
        optimizer_metrics = await self.timer.run_in_model_thread(
            "training", optimizer_step, self.optimizer, accumulator, config.optimizer, step
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
            in_graph=self.audit.count_unexpected(rollouts),
            reference=reference_metrics,
            credit=credit_metrics,
        )

    def _write_credit(self, step: int, step_credit: StepCredit) -> None:
        records = {credit.rollout.name: credit.record for credit in step_credit.rollout_credits}
        self.folder.write_credit(step, records)
        if step_credit.reference_results:
            self.folder.write_references(step, [result.to_json() for result in step_credit.reference_results])

    # -- held-out tasks -----------------------------------------------------------------------------------------------

    async def _evaluate_if_due(self) -> None:
        """Evaluates before the first step, every `evaluation.every` steps and after the last step."""
        config, context, step = self.config, self.context, self.state.step
        is_due = step % config.evaluation.every == 0 or step == config.steps
        if not is_due or not held_out_tasks(context.task_suite, config.evaluation):
            return
        with self.timer.phase("evaluation"):
            play_context = context.play_context(config.siblings.limits)
            rows = await evaluate_policy(play_context, config.evaluation, seed=config.seed, step=step)
            if not rows:
                return
            self.folder.append_evaluation(rows)
            summary = summarise_evaluation(rows)
        modes = summary["modes"]
        score = modes["sampled" if "sampled" in modes else "greedy"]["overall"]["value"]
        best = self.state.best
        if score is not None and (best is None or score > best.score):  # the first wins a tie
            self.state = replace(self.state, best=BestStep(step, score))
        self.callback.on_evaluation(summary)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _set_up_and_restore(self) -> None:
        self.model.eval()  # without dropout, log-probs before and after an update are of one distribution
        needs = self.context.method.needs
        if self.config.surrogate.kl > 0 or (needs and needs.needs_initial_policy):
            self.initial_policy = InitialPolicy(self.model)
        self.audit = ContextAudit(self.model)
        self.optimizer = build_optimizer(self.model, self.config.optimizer)
        steps = self.folder.checkpoint_steps()
        if steps and steps[-1] > self.config.steps:
            raise FolderError(
                f"{self.folder.path}: this run has done {steps[-1]} steps already, expected steps={steps[-1]} or more, "
                f"got steps={self.config.steps}"
            )
        check_resumable_state(self.folder)
        self.state = checkpoint.load_checkpoint(self.folder, self.context.policy, self.optimizer) or TrainerState()
        self.context.method.load_state_dict(self.state.method)
        self.folder.rewind(self.state.step if steps else -1)
        self.recent_metrics = self.folder.read_metrics()[-validity.WINDOW_STEPS :]
        remove_damaged_best(self.folder, self.state.step)
        checkpoint.link_best(self.folder, self.state)

    async def _save_if_due(self) -> None:
        """Saves every `checkpoint.every` steps, after the last step, and when the policy is the best so far."""
        step, best = self.state.step, self.state.best
        new_best = best is not None and best.step == step
        if step % self.config.checkpoint.every == 0 or step == self.config.steps or new_best:
            with self.timer.phase("saving"):
                await self._run_in_model_thread(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        checkpoint.save_checkpoint(
            self.folder, self.context.policy, self.optimizer, state=self.state, facts=self.context.model_names
        )
        checkpoint.link_best(self.folder, self.state)
        checkpoint.prune_checkpoints(self.folder, self.config.checkpoint.keep)

    def _export_policy(self) -> None:
        """The last step's policy, as anyone would load it."""
        with atomic_folder(self.folder.policy_path) as folder:
            save_policy(
                self.context.policy,
                folder,
                {"steps": self.state.step, "seed": self.config.seed, **self.context.model_names},
            )
            (folder / TRAINED_FILE).write_text(json.dumps({"schema": SCHEMA, "step": self.state.step}) + "\n")
            write_folder_manifest(folder)


def has_exported(folder: RunFolder, step: int) -> bool:
    """Whether the policy of a step lies whole in the run's folder."""
    policy = folder.policy_path
    try:
        if json.loads((policy / TRAINED_FILE).read_bytes())["step"] != step:
            return False  # without reading its weights
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return not any(find_folder_damage(policy, needs_manifest=folder.has_checksums))
