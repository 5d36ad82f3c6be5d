"""The trainer: gather siblings, score, ask the method what they deserve, move the policy, record, validate, save."""

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from sgcd.act.siblings import CollectedGroups, GroupStream, collect_mixed_groups, play_groups
from sgcd.errors import FolderError
from sgcd.learn.policy import checkpoint
from sgcd.learn.policy.checkpoint import BestStep, TrainerState
from sgcd.learn.policy.initial_policy import InitialPolicy
from sgcd.learn.policy.load import save_policy
from sgcd.learn.scoring.logprobs import sampler_mismatch
from sgcd.learn.training.audit import ContextAudit, count_foreign_tokens
from sgcd.learn.training.context import RunContext, TrainConfig, TrainerCallback
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.optimizer import StepResult, build_optimizer, learning_rate, optimizer_step
from sgcd.learn.training.reference_prefetcher import ReferencePrefetcher
from sgcd.learn.training.rollout_metrics import all_groups, rollout_metrics
from sgcd.learn.training.step import GradientStep
from sgcd.learn.training.timers import StepTimer, peak_memory, run_in_model_thread
from sgcd.measure import health
from sgcd.measure.evaluate import evaluate_policy_tasks, held_out_tasks
from sgcd.measure.summary import summarise_evaluation
from sgcd.records import Group
from sgcd.storage.atomic import SCHEMA, Row, atomic_folder

_T = TypeVar("_T")
NO_MIXED_GROUP = "no mixed group"
TRAINED_FILE = "trained.json"
"""Stands beside the policy that comes out, and says after which step."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How far a run is, and how many steps of that were done by this call."""

    step: int
    num_new_steps: int


class Trainer:
    """One asyncio loop around one thread that owns the model; what it does is a function of the plan and the folder."""

    def __init__(self, config: TrainConfig, context: RunContext, callback: TrainerCallback) -> None:
        self.config = config
        self.context = context
        self.callback = callback
        self.folder = context.folder
        self.model: Any = context.policy.model
        self.initial_policy: InitialPolicy | None = None
        self.timer = StepTimer(context.model_thread, callback.on_phase)
        self.gradient_step = GradientStep(config, context, self.timer)
        self.state = TrainerState()
        self.recent_metrics: list[Row] = []
        """The newest rows of metrics, as many as health judges together."""

    async def run(self) -> TrainResult:
        """From the newest checkpoint, or from the start, to the plan's last step."""
        async with self.context.open_endpoints():
            return await self._run()

    async def _run(self) -> TrainResult:
        await self._run_in_model_thread(self._restore)
        start = self.state.step
        if not self.folder.checkpoint_steps():
            await self._evaluate_if_due()
            await self._save_if_due()
        for step in range(start + 1, self.config.steps + 1):
            await self._train_step(step)
        if exported_step(self.context) != self.state.step:
            with self.timer.phase("saving"):
                await self._run_in_model_thread(self._export_policy)
        return TrainResult(self.state.step, self.state.step - start)

    async def _run_in_model_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """Do something with the model, in its thread."""
        return await run_in_model_thread(self.context.model_thread, function, *args)

    # -- one step -----------------------------------------------------------------------------------------------------

    async def _train_step(self, step: int) -> None:
        async with ReferencePrefetcher(
            self.context.reference_builder if self.context.method.needs else None
        ) as prefetcher:
            with self.timer.phase("sampling"):
                collected = await self._collect_groups(step, prefetcher)
            with self.timer.phase("saving"):
                groups = all_groups(collected)
                is_kept = [index < len(collected.kept) for index in range(len(groups))]
                self.folder.write_rollouts(step, groups, is_kept)
            update_metrics = await self._update_policy(step, collected.kept, prefetcher)
        self.state = replace(self.state, step=step, cursor=collected.cursor, method=self.context.method.state_dict())
        await self._evaluate_if_due()
        row = {
            "schema": SCHEMA,
            "step": step,
            **rollout_metrics(collected),
            **update_metrics,
            "peak_memory": peak_memory(),
        }
        row["invalid"] = health.invalid_reasons([*self.recent_metrics, row], step == self.config.steps)
        row |= self.context.pop_endpoint_usage()
        row["seconds"] = self.timer.pop_seconds()
        self.folder.append_metrics(row)
        self.recent_metrics = [*self.recent_metrics, row][-health.WINDOW_STEPS :]
        self.callback.on_step(row)
        await self._save_if_due()

    async def _collect_groups(self, step: int, prefetcher: ReferencePrefetcher) -> CollectedGroups:
        context, config = self.context, self.config
        group_size, limits = config.siblings.group_size, config.siblings.limits

        async def play_tasks(tasks: Sequence[Any]) -> GroupStream:
            chat = context.policy.chat
            play_args = (group_size, context.task_suite, chat, context.sampler, limits, config.seed, step)
            group_batches = play_groups(tasks, *play_args, on_group_done=lambda group: prefetcher.prefetch([group]))
            async with aclosing(group_batches):
                async for groups in group_batches:
                    yield groups

        return await collect_mixed_groups(
            context.task_suite.splits["train"], self.state.cursor, config.siblings, config.seed, play_tasks
        )

    async def _update_policy(self, step: int, groups: Sequence[Group], prefetcher: ReferencePrefetcher) -> Row:
        """Score what was kept, ask the method, and move the policy. Without a mixed group there is nothing to learn."""
        config, context = self.config, self.context
        if not groups:
            skipped = StepResult(learning_rate(config.optimizer, step), skipped=NO_MIXED_GROUP)
            return {**asdict(skipped), "sampler_gap_mean": None, "sampler_gap_max": None, "foreign": 0, "in_graph": 0}
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        num_tokens = sum(rollout.num_policy_tokens for rollout in rollouts)
        gradient_args = (
            config.surrogate,
            config.sampler.temperature,
            config.optimizer.micro_batch_tokens,
            num_tokens,
            config.scoring.logits_bytes,
        )
        gradient = GradientAccumulator(self.model, *gradient_args)
        step_credit = await self.gradient_step.compute_gradients(
            step, groups, prefetcher, gradient, self.initial_policy
        )
        step_result = await self.timer.run_in_model_thread(
            "training", optimizer_step, self.optimizer, gradient, config.optimizer, step
        )
        with self.timer.phase("saving"):
            self.folder.write_credit(
                step,
                {rollout_credit.rollout.name: rollout_credit.record for rollout_credit in step_credit.rollout_credits},
            )
            if step_credit.reference_results:
                self.folder.write_references(
                    step, [reference_result.to_json() for reference_result in step_credit.reference_results]
                )
        mean_mismatch, max_mismatch = sampler_mismatch(rollouts, step_credit.logprobs)
        return {
            **asdict(step_result),
            "sampler_gap_mean": mean_mismatch,
            "sampler_gap_max": max_mismatch,
            "foreign": sum(count_foreign_tokens(rollout, context.policy.chat) for rollout in rollouts),
            "in_graph": self.audit.count_unexpected(rollouts),
            **step_credit.metrics,
        }

    # -- held-out tasks -----------------------------------------------------------------------------------------------

    async def _evaluate_if_due(self) -> None:
        """Before the first step, every so often, and after the last; leaves no trace on training."""
        config, context, step = self.config, self.context, self.state.step
        is_due = step % config.evaluation.every == 0 or step == config.steps
        if not is_due or not held_out_tasks(context.task_suite, config.evaluation):
            return
        with self.timer.phase("evaluation"):
            chat, limits = context.policy.chat, config.siblings.limits
            rows = await evaluate_policy_tasks(
                context.task_suite, chat, context.sampler, limits, config.evaluation, config.seed, step
            )
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

    # -- going on -----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        self.model.eval()  # without dropout, log-probs before and after an update are of one distribution
        if self.config.surrogate.kl > 0:
            self.initial_policy = InitialPolicy(self.model)
        self.audit = ContextAudit(self.model)
        self.optimizer = build_optimizer(self.model, self.config.optimizer)
        steps = self.folder.checkpoint_steps()
        if steps and steps[-1] > self.config.steps:
            raise FolderError(
                f"{self.folder.path}: this run has done {steps[-1]} steps already, expected steps={steps[-1]} or more, "
                f"got steps={self.config.steps}"
            )
        self.state = checkpoint.load_checkpoint(self.folder, self.context.policy, self.optimizer) or TrainerState()
        self.context.method.load_state_dict(self.state.method)
        self.folder.rewind(self.state.step if steps else -1)
        self.recent_metrics = self.folder.read_metrics()[-health.WINDOW_STEPS :]
        checkpoint.link_best(self.folder, self.state)

    async def _save_if_due(self) -> None:
        """Every so often, after the last step, and whenever the policy is the best so far."""
        step, best = self.state.step, self.state.best
        new_best = best is not None and best.step == step
        if step % self.config.checkpoint.every == 0 or step == self.config.steps or new_best:
            with self.timer.phase("saving"):
                await self._run_in_model_thread(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        checkpoint.save_checkpoint(
            self.folder, self.context.policy, self.optimizer, self.state, self.context.model_names
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


def exported_step(context: RunContext) -> int | None:
    """The step of the policy that lies in the run's folder; None when there is none."""
    path = context.folder.policy_path / TRAINED_FILE
    return json.loads(path.read_text())["step"] if path.exists() else None
