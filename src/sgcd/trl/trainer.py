"""`SGCDTrainer`: TRL's GRPOTrainer whose advantages have one number for each token, by a credit method of sgcd.

It overrides what TRL means to be overridden (`_calculate_rewards`, `_generate_and_score_completions`), each through
`super()`. Generation, rewards, loss, optimizer, logs and checkpoints are TRL's.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, gather_object
from transformers.utils import get_json_schema
from trl import GRPOTrainer

from sgcd.build_tasks import build_writer, build_writer_endpoint
from sgcd.chat import Chat
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.credit.methods import CreditInputs, Method
from sgcd.credit_records import Features
from sgcd.learn.policy.head import check_head
from sgcd.learn.policy.teacher_policies import TeacherPolicies
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.student import StudentScores, score_student_no_grad
from sgcd.learn.training.credit_metrics import RolloutCredit, build_credit_metrics
from sgcd.learn.training.teacher_scorer import ReferencePrefetcher, ScoredGroup, TeacherScorer
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.records import Group
from sgcd.storage.credit_metrics import NoiseMetrics
from sgcd.trl.config import SGCDConfig
from sgcd.trl.rollouts import TrlCompletion, get_private_literals, read_group, with_trl_ids

_STATE_FILE = "sgcd_method.json"
_logger = get_logger(__name__)


class SGCDTrainer(GRPOTrainer):
    """[`~trl.GRPOTrainer`] with Sibling-Guided Credit Distillation (2606.12634), or any other method of sgcd.

    Siblings are the completions of one prompt. From those that succeeded and those that failed a reference is written;
    the policy itself, shown the reference, is the teacher; where it disagrees, tokens carry more of the advantage.
    """

    _tag_names = ("trl", "grpo", "sgcd")
    _name = "SGCD"

    def __init__(self, model: Any, reward_funcs: Any = None, args: SGCDConfig | None = None, **kwargs: Any) -> None:
        if not isinstance(args, SGCDConfig):
            raise ValueError(
                f"args: expected an SGCDConfig, got {type(args).__name__}: from sgcd.trl import SGCDConfig"
            )
        self.credit_method: Method = args.build_method()
        self.success_reward = args.success_threshold(reward_funcs)
        super().__init__(model, reward_funcs, args, **kwargs)
        check_supported(self)
        self.chat = Chat(deepcopy(self._tokenizer), "the policy")
        settings = args.reference_settings()
        endpoint = build_writer_endpoint(settings.writer, "writer_kwargs")
        self.reference_builder = ReferenceBuilder(
            build_writer(settings.writer, self.credit_method, endpoint), self.chat, settings.budget, settings.min_tokens
        )
        self._tool_schemas = [get_json_schema(tool) for tool in self.tools or []]
        self._completions: list[TrlCompletion] = []
        check_head(self.accelerator.unwrap_model(self.model))

    # -- what TRL calls ----------------------------------------------------------------------------------------------

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        """TRL's, and keeps what the credit is made from."""
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        first = self.accelerator.process_index * len(prompts)
        weighted = (rewards * self.reward_weights.to(rewards.device).unsqueeze(0)).nansum(dim=1)
        weighted[torch.isnan(rewards).all(dim=1)] = torch.nan
        own = weighted[first : first + len(prompts)].tolist()
        environments = self.environments or [None] * len(prompts)
        self._completions = [
            TrlCompletion(
                prompt=prompt,
                messages=messages,
                prompt_ids=np.zeros(0, np.int32),  # TRL hands them out after the rewards
                ids=np.asarray(ids, np.int32),
                sampled=np.ones(len(ids), np.bool_),
                reward=reward,
                row={name: row[name] for name in ("id", "category") if name in row},
                private=get_private_literals(environment),
            )
            for prompt, messages, ids, reward, row, environment in zip(
                prompts, completions, completion_ids_list, own, inputs, environments, strict=True
            )
        ]
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's, with advantages by token in training."""
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        completions = [with_trl_ids(one, output, index) for index, one in enumerate(self._completions)]
        output["advantages"] = self._assign_credit(completions, output["advantages"], output["completion_ids"].shape[1])
        return output

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        state = self.credit_method.state_dict()
        if state and self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            (folder / _STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and (path := Path(checkpoint) / _STATE_FILE).exists():
            self.credit_method.load_state_dict(json.loads(path.read_text(encoding="utf-8")))

    # -- credit ------------------------------------------------------------------------------------------------------

    def _assign_credit(self, completions: Sequence[TrlCompletion], advantages: Any, length: int) -> Any:
        """Advantages by token, [completions, length]. Siblings of other processes are gathered first."""
        size, first = self.num_generations, self.accelerator.process_index * len(completions)
        everyone: list[TrlCompletion] = gather_object(list(completions))
        all_advantages: list[float] = self.accelerator.gather(advantages).tolist()
        own_rows = range(first, first + len(completions))
        groups: dict[int, Group] = {
            start: read_group(everyone[start : start + size], self.chat, self._tool_schemas, self.success_reward)
            for start in sorted({row - row % size for row in own_rows})
        }
        token_advantages = advantages.unsqueeze(1).repeat(1, length)
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        try:
            scored = asyncio.run(self._score_groups(model, [group for group in groups.values() if group.is_mixed()]))
            credited = self._credit_groups(model, scored, groups, all_advantages)
        finally:
            model.train(was_training)
        for start, rollout_credits in credited.items():
            for entry in rollout_credits:
                row = start + entry.rollout.sibling - first
                if 0 <= row < len(completions):
                    values = torch.from_numpy(entry.signal.token_advantage).to(token_advantages)
                    token_advantages[row, : len(values)] = values
        self._log_credit([entry for one in credited.values() for entry in one], groups, scored, own_rows)
        return token_advantages

    async def _score_groups(self, model: Any, groups: Sequence[Group]) -> list[ScoredGroup]:
        """References and teachers of the mixed groups."""
        needs = self.credit_method.needs
        builder = self.reference_builder if needs and needs.needs_references else None
        thread = ModelThread()
        try:
            async with ReferencePrefetcher(builder, with_swapped=bool(needs and needs.needs_swapped)) as references:
                scorer = TeacherScorer(
                    groups=groups,
                    needs=needs,
                    model=model,
                    policies=TeacherPolicies(),
                    references=references,
                    reference_builder=self.reference_builder,
                    forward_config=self._forward_config(),
                    timer=StepTimer(thread, lambda _: None),
                )
                async with scorer:
                    return [group async for group in scorer.scored_groups()]
        finally:
            thread.shutdown()

    def _credit_groups(
        self, model: Any, scored: Sequence[ScoredGroup], groups: Mapping[int, Group], advantages: Sequence[float]
    ) -> dict[int, list[RolloutCredit]]:
        """The credit of each mixed group, by the index of its first completion."""
        starts = {id(group): start for start, group in groups.items()}
        passes = [(starts[id(one.group)], one, self._read_students(model, one)) for one in scored]
        inputs = {start: self._credit_inputs(one, scores, start, advantages) for start, one, scores in passes}
        if self.credit_method.needs_whole_step:
            self.credit_method.observe_step([entry for entries in inputs.values() for entry in entries])
        needs = self.credit_method.needs
        return {
            start: [
                RolloutCredit(
                    entry.rollout,
                    self.credit_method.assign_credit(entry),
                    entry.features.get(needs.teachers[0]) if needs else None,
                    teacher_input.outside_literals,
                    teacher_input.skip_reason,
                    logprobs=entry.logprobs,
                )
                for entry, teacher_input in zip(inputs[start], one.inputs, strict=True)
            ]
            for start, one, _ in passes
        }

    def _read_students(self, model: Any, scored: ScoredGroup) -> StudentScores:
        """The student's own pass over a group, at the teachers' ids."""
        needs = self.credit_method.needs
        return score_student_no_grad(
            model,
            scored.group.rollouts,
            list(scored.teacher_outcomes.values()),
            divergence=needs.divergence if needs else "reverse_kl",
            config=self._forward_config(),
        )

    def _credit_inputs(
        self, scored: ScoredGroup, scores: StudentScores, start: int, advantages: Sequence[float]
    ) -> list[CreditInputs]:
        group_advantages = [advantages[start + rollout.sibling] for rollout in scored.group.rollouts]
        entries: list[CreditInputs] = []
        for index, rollout in enumerate(scored.group.rollouts):
            columns = zip(scored.teacher_outcomes, scores.features, strict=True)
            features = {teacher: column[index] for teacher, column in columns}
            entries.append(
                CreditInputs(
                    rollout,
                    group_advantages[index],
                    {teacher: one for teacher, one in features.items() if isinstance(one, Features)},
                    scored.inputs[index].outside_literals,
                    scored.group,
                    group_advantages=group_advantages,
                    logprobs=scores.logprobs[index],
                    entropy=scores.entropies[index],
                    step=self.state.global_step + 1,
                )
            )
        return entries

    def _forward_config(self) -> ForwardConfig:
        return ForwardConfig(self.temperature, self.args.scoring_batch_tokens, share=self.args.share_prefixes)

    def _log_credit(
        self,
        rollout_credits: Sequence[RolloutCredit],
        groups: Mapping[int, Group],
        scored: Sequence[ScoredGroup],
        own_rows: Sequence[int],
    ) -> None:
        """Metrics into TRL's logs, and the reference of each completion into its table of completions."""
        log = self._metrics["train"]
        log["sgcd/mixed_groups"].append(len(scored) / len(groups))
        if self.credit_method.needs and rollout_credits:
            metrics = build_credit_metrics(rollout_credits, self.credit_method.needs.can_change_weights, {})
            values = {
                "scored": metrics.scored / metrics.rollouts,
                "credited": metrics.credited / metrics.creditable if metrics.creditable else None,
                "mean_weight": metrics.weight.mean,
                "divergence": metrics.divergence.mean,
                "sure_divergence": metrics.noise
                and metrics.noise.divergence
                and metrics.noise.sure_divergence / metrics.noise.divergence,
            }
            for name, value in values.items():
                if value is not None:
                    log[f"sgcd/{name}"].append(value)
        texts = {}
        for one in scored:
            if (result := one.reference_result) is None:
                continue
            texts[id(one.group)] = result.reference.text if result.reference else f"none: {result.cause}"
            if result.cause:
                _logger.warning(f"task {result.task}: no reference, so every weight is one: {result.cause}")
        column = [texts.get(id(groups[row - row % self.num_generations]), "") for row in own_rows]
        self._logs["extra"]["reference"].extend(gather_object(column))


def check_supported(trainer: GRPOTrainer) -> None:
    """Refuse what the teacher's pass cannot run under."""
    kind = trainer.accelerator.distributed_type
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if kind == DistributedType.FSDP or (plugin is not None and plugin.zero_stage == 3):
        raise ValueError(
            "SGCDTrainer: the weights are sharded over processes (FSDP or ZeRO 3), and the teacher's pass needs them "
            "whole; expected DDP or ZeRO 1 or 2, or train with `sgcd train`"
        )
    if trainer.num_generations < 2:
        raise ValueError("num_generations: credit compares siblings; expected at least 2")


def sure_share(noise: NoiseMetrics | None) -> float | None:
    """The share of the divergence at tokens where the policy is sure; above .2 the reference changes marks."""
    return noise.sure_divergence / noise.divergence if noise and noise.divergence else None
