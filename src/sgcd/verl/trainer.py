"""`SiblingTrainer`: verl's synchronous trainer on groups that are mixed, with a weight for each token's advantage."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import ray
import torch
from tensordict import TensorDict

from sgcd.act.siblings import CollectedGroups, collect_until_mixed
from sgcd.act.task_order import TaskCursor, TaskOrder
from sgcd.assemble import build_controlled_method
from sgcd.build_tasks import build_task_suite, build_writer, build_writer_endpoint
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.endpoint.client import connect_endpoints, pop_endpoint_metrics
from sgcd.errors import EngineError
from sgcd.learn.policy.load import read_policy_config, resolve_model
from sgcd.learn.policy.teacher_policies import TeacherPolicies
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.training.credit_metrics import RolloutCredit
from sgcd.learn.training.teacher_scorer import ReferencePrefetcher
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.recipe.load import load_recipe
from sgcd.records import Group
from sgcd.storage.run_folder import RunFolder
from sgcd.verl.collect import QueuePlayer
from sgcd.verl.credit import (
    PreparedGroup,
    RowKey,
    TeacherInputBuilder,
    build_prompt_fields,
    config_only,
    credit_groups,
    prepare_groups,
    read_row_scores,
    teacher_prompts,
)
from sgcd.verl.evaluate import evaluate_on_verl, list_recipe_trials
from sgcd.verl.hooks import PPOTrainerSync, response_from_nested, tq
from sgcd.verl.readers import FEATURES, feature_name
from sgcd.verl.record import write_step
from sgcd.verl.worker import CreditWorker

_T = TypeVar("_T")


class BackgroundLoop:
    """An event loop in a thread of its own, in which references are written while verl's driver waits for workers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True, name="references").start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class TaskRows:
    """In place of verl's dataloader: the position in the order of tasks and the method's state, which verl saves."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.cursor = TaskCursor()

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.cursor.to_json(), "method": self.method.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.cursor = TaskCursor.from_json(state["cursor"])
        self.method.load_state_dict(state["method"])


class SiblingTrainer(PPOTrainerSync):
    """verl's trainer, whose batches are chosen and whose advantages are weighted by sgcd."""

    def __init__(self, config: Any) -> None:
        self.recipe = load_recipe(Path(config.sgcd.recipe))
        recipe = self.recipe
        self.folder = RunFolder.open(Path(config.sgcd.folder))
        self.method = build_controlled_method(recipe)
        self.rows = TaskRows(self.method)
        self.background = BackgroundLoop()
        model_config, chat = read_policy_config(resolve_model(recipe.policy.start), recipe.policy.tool_instruction)
        self.model_stub = config_only(model_config)
        endpoint = build_writer_endpoint(recipe.reference.writer)
        self.reference_builder = ReferenceBuilder(
            build_writer(recipe.reference.writer, self.method, endpoint),
            chat,
            recipe.reference.budget,
            recipe.reference.min_tokens,
            recipe.siblings.min_reward_gap,
        )
        self.open_endpoints = AsyncExitStack()
        self.writer_endpoints = {"endpoint": endpoint} if endpoint and self._reads_references else {}
        journals = {"endpoint": self.folder.calls_path}
        self.background.run(self.open_endpoints.enter_async_context(connect_endpoints(self.writer_endpoints, journals)))
        task_suite = build_task_suite(recipe)
        self.task_order = TaskOrder(task_suite.splits["train"], recipe.seed)
        self.trials = list_recipe_trials(recipe, task_suite)
        self.timer = StepTimer(ModelThread(), lambda _: None)
        self.credit: list[RolloutCredit] = []
        super().__init__(config)

    @property
    def _reads_references(self) -> bool:
        return self.method.needs is not None and self.method.needs.needs_references

    # -- what verl calls ---------------------------------------------------------------------------------------------

    def _build_replay_buffer(self) -> Any:
        return self  # `sample` below

    def _init_dataloader(self) -> None:
        self.train_dataloader = self.rows
        self.steps_per_epoch = self.total_training_steps = self.recipe.steps
        self.config.actor_rollout_ref.actor.optim.total_training_steps = self.recipe.steps

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        self.role_worker_mapping = dict.fromkeys(self.role_worker_mapping, ray.remote(CreditWorker))

    def prepare_step(self) -> dict[str, Any]:
        return {}

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """verl's step, with a row in the run's folder as every run of sgcd has one."""
        batch = super().step(metrics, timing_raw)
        write_step(
            self.folder,
            self.global_steps,
            self.collected,
            [one.scored for one in self.prepared],
            self.credit,
            method=self.method,
            metrics=metrics,
            endpoint_usage=pop_endpoint_metrics(self.writer_endpoints),
            seconds=timing_raw,
        )
        return batch

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Play until enough groups are mixed; references are requested as groups end."""
        self.collected = self.background.run(self._collect(global_steps))
        groups = self.collected.kept or tuple(group for group in self.collected.same_outcome if group.rollouts)[:1]
        if not groups:
            raise EngineError(f"engine: every rollout of step {global_steps} broke: {self._describe_broken()}")
        batch = self.player.take_batch(groups)
        self.row_keys: dict[str, RowKey] = {
            key: (rollout.task, rollout.sibling)
            for group in groups
            for key, rollout in zip(self.player.keys_of(group), group.rollouts, strict=True)
        }
        self.rows.cursor = self.collected.cursor
        return batch, collection_metrics(self.collected)

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's, with what each teacher reads beside each row."""
        self.credit = []
        self.prepared, self.num_scored_teachers = self.background.run(self._prepare()), 0
        if needs := self.method.needs:
            prompts = teacher_prompts(self.prepared, needs.teachers)
            if any(prompt is not None for row in prompts.values() for prompt in row):
                data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["prompts"])
                rows = [prompts.get(self.row_keys[key]) if key in self.row_keys else None for key in batch.keys]
                fields = build_prompt_fields(rows, data["prompts"], len(needs.teachers))
                self._put(batch, fields)
                self.num_scored_teachers = len(needs.teachers)
                batch.extra_info.update({"sgcd_k": needs.k, "sgcd_divergence": needs.divergence})
        return super()._compute_old_log_prob(batch, metrics)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's advantages, with a weight for each token and what the method adds to it. Padding keeps weight one."""
        batch = super()._compute_advantage(batch, metrics)
        if not self.prepared:
            return batch
        num_teachers = self.num_scored_teachers
        names = [feature_name(feature, number) for number in range(num_teachers) for feature in FEATURES]
        data = tq.kv_batch_get(
            keys=batch.keys,
            partition_id=batch.partition_id,
            select_fields=["advantages", "response_mask", "old_log_probs", "entropy", *names],
        )
        mask = data["response_mask"]
        for name in names:  # the workers answer for prompt and response
            data[name] = response_from_nested(data[name], mask)
        rows = [self.row_keys.get(key) for key in batch.keys]
        scores = read_row_scores(data, mask, num_teachers)
        token_advantages, flags_of_rows = list(data["advantages"].unbind()), list(mask.unbind())
        found = zip(rows, scores, token_advantages, flags_of_rows, strict=True)
        of_rows = {row: (one, read_advantage(values, flags)) for row, one, values, flags in found if row}
        self.credit = credit_groups(
            self.method,
            self.prepared,
            scores={row: one for row, (one, _) in of_rows.items()},
            advantages={row: advantage for row, (_, advantage) in of_rows.items()},
            step=self.global_steps,
        )
        credited = {(entry.rollout.task, entry.rollout.sibling): entry for entry in self.credit}
        for index, row in enumerate(rows):
            if row in credited:
                values = torch.from_numpy(credited[row].signal.token_advantage)
                token_advantages[index] = values.to(token_advantages[index]) * flags_of_rows[index]
        self._put(batch, {"advantages": torch.nested.as_nested_tensor(token_advantages, layout=torch.jagged)})
        return batch

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Nothing is learned from a step without a mixed group: also no momentum moves the policy."""
        return super()._update_actor(batch, metrics) if self.collected.kept else batch

    def _validate(self) -> dict[str, float]:
        """Our evaluation in place of verl's, which also calls this when a run goes on, whether one is due or not."""
        step, every = self.global_steps, self.recipe.evaluation.every
        is_due = step % every == 0 or step == self.recipe.steps
        if not (self.trials and is_due) or any(row["step"] == step for row in self.folder.read_evaluations()):
            return {"sgcd/trials": 0.0}
        rows = self.background.run(evaluate_on_verl(self.agent_loop_manager, self.recipe, self.trials, step=step))
        self.folder.append_evaluation(rows)
        return {
            "sgcd/trials": float(len(rows)),
            "sgcd/evaluation_success": sum(row["success"] for row in rows) / len(rows),
        }

    # -- the work ----------------------------------------------------------------------------------------------------

    async def _collect(self, step: int) -> CollectedGroups:
        settings = self.recipe.siblings
        builder, needs = self.reference_builder if self._reads_references else None, self.method.needs
        self.prefetcher = ReferencePrefetcher(builder, with_swapped=needs is not None and needs.needs_swapped)

        def on_group_done(group: Group) -> None:
            if group.is_mixed(settings.min_reward_gap):
                self.prefetcher.prefetch(group)

        self.player = QueuePlayer(self.agent_loop_manager, settings, step, on_group_done)
        return await collect_until_mixed(
            self.rows.cursor,
            settings,
            self.task_order,
            self.player.play_tasks,
            groups_per_cohort=max(1, self.recipe.sampler.slots // settings.group_size),
        )

    async def _prepare(self) -> list[PreparedGroup]:
        async with self.prefetcher:
            return await prepare_groups(
                TeacherInputBuilder(
                    groups=self.collected.kept,
                    needs=self.method.needs,
                    model=self.model_stub,
                    policies=TeacherPolicies(),
                    references=self.prefetcher,
                    reference_builder=self.reference_builder,
                    forward_config=ForwardConfig(),
                    timer=self.timer,
                )
            )

    @staticmethod
    def _put(batch: Any, fields: dict[str, Any]) -> None:
        """Write fields of all rows into the queue."""
        data = TensorDict(fields, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)

    def _describe_broken(self) -> str:
        causes = [rollout.broken for group in self.collected.same_outcome for rollout in group.broken]
        return causes[0] if causes else "no task was played"


def read_advantage(advantages: Any, mask: Any) -> float:
    """The rollout's one advantage, which verl has written on each of its tokens."""
    return float(advantages[mask.bool()][0])


def collection_metrics(collected: CollectedGroups) -> dict[str, float]:
    """For verl's trackers."""
    groups: Sequence[Group] = (*collected.kept, *collected.extra, *collected.same_outcome)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    num_broken = sum(len(group.broken) for group in groups)
    return {
        "sgcd/rounds": collected.rounds,
        "sgcd/groups": len(groups),
        "sgcd/mixed_groups": len(collected.kept) + len(collected.extra),
        "sgcd/broken": num_broken,
        "sgcd/success": sum(rollout.success for rollout in rollouts) / max(1, len(rollouts)),
    }
