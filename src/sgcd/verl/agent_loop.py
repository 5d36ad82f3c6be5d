"""verl's agent loop that plays a task of ours: verl's server samples, and every token of the rollout is recorded."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.act.environment import SampledTurn, TaskSuite
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.build_tasks import build_task_suite, build_user_endpoint
from sgcd.chat import Chat
from sgcd.learn.policy.load import read_policy_config, resolve_model
from sgcd.measure.evaluate import Trial
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe
from sgcd.records import Rollout, Task, TokenIds
from sgcd.seeds import derive_seed
from sgcd.verl.hooks import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from sgcd.verl.queue import put_rollout


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What all rollouts of one process share."""

    recipe: Recipe
    task_suite: TaskSuite
    tasks: dict[tuple[str, str], Task]
    """By split and id."""
    chat: Chat
    endpoints: AsyncExitStack


_contexts: dict[str, WorkerContext] = {}
"""By the path of the recipe: verl makes an agent loop for every rollout, and a process has one loop of events."""


async def load_worker_context(recipe_path: str) -> WorkerContext:
    """What the recipe of the run names, built once in a process; a simulated user's endpoint stays connected."""
    if recipe_path not in _contexts:
        recipe = load_recipe(Path(recipe_path))
        user = build_user_endpoint(recipe)
        suite = build_task_suite(recipe, user)
        _, chat = read_policy_config(resolve_model(recipe.policy.start), recipe.policy.tool_instruction)
        splits = ("train", recipe.evaluation.split)
        tasks = {(split, task.id): task for split in splits for task in suite.splits.get(split, ())}
        _contexts[recipe_path] = WorkerContext(recipe, suite, tasks, chat, AsyncExitStack())
        if user:
            await _contexts[recipe_path].endpoints.enter_async_context(user.connect(None))
    return _contexts[recipe_path]


class ServerSession:
    """One rollout at verl's server: each turn sends the whole context, and the server keeps its prefix cached."""

    def __init__(self, client: Any, request_id: str, sampling_params: dict[str, Any], chat: Chat) -> None:
        self._client = client
        self._request_id = request_id
        self._params = {**sampling_params, "logprobs": True, "stop_token_ids": list(chat.end_ids)}
        self._end_ids = chat.end_ids
        self._context: list[int] = []

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        """Append `new_ids` to the context, then sample up to the end of the turn, at most `max_new_tokens` tokens."""
        self._context += new_ids.tolist()
        output = await self._client.generate(
            request_id=self._request_id,
            prompt_ids=list(self._context),
            sampling_params={**self._params, "max_tokens": max_new_tokens},
        )
        ids, logprobs = output.token_ids[:max_new_tokens], output.log_probs
        if not ids or logprobs is None:
            raise RuntimeError(
                f"verl's server answered {len(ids)} tokens ({output.stop_reason}); expected ids and log_probs of a turn"
            )
        self._context += ids
        return SampledTurn(
            np.array(ids, np.int32), np.array(logprobs[: len(ids)], np.float32), ids[-1] in self._end_ids
        )

    def close(self) -> None:
        """Nothing is kept at the server but its cache."""


class SiblingAgentLoop(AgentLoopBase):
    """Plays one sibling of a task. A broken rollout goes to the trainer's records alone: it is no row of a batch."""

    def __init__(self, trainer_config: Any, server_manager: Any, **_: Any) -> None:
        # Not super's: it makes verl's own renderer of conversations, which refuses tokenizers that ours takes.
        self.config = trainer_config.config
        self.server_manager = server_manager

    async def run(self, sampling_params: dict[str, Any], **prompt: Any) -> list[AgentLoopOutput]:
        """`prompt` is the row that the trainer submitted: a task of the step and the number of the sibling, or a trial
        of the evaluation, which is no row of a batch either."""
        context = await load_worker_context(self.config.sgcd.recipe)
        key = f"{prompt['uid']}_{prompt['session_id']}"
        if "trial" in prompt:
            recorder, params = build_trial(context, prompt, sampling_params)
        else:
            recorder, params = build_sibling(context, prompt), sampling_params
        session = ServerSession(self.server_manager, key, {**params, "seed": recorder.seed % 2**31}, context.chat)
        rollout = await play_rollout(
            recorder,
            context.task_suite.environment_factory(),
            session,
            chat=context.chat,
            limits=context.recipe.siblings.limits,
        )
        await put_rollout(key, rollout)
        return [] if rollout.broken or "trial" in prompt else [as_output(rollout, int(prompt["global_steps"]))]


def build_sibling(context: WorkerContext, prompt: Mapping[str, Any]) -> RolloutRecorder:
    """The rollout of a step that a row stands for."""
    task, sibling = context.tasks["train", str(prompt["task_id"])], int(prompt["session_id"])
    seed = derive_seed(context.recipe.seed, int(prompt["global_steps"]), task.id, sibling)
    return RolloutRecorder(task, sibling, seed)


def build_trial(
    context: WorkerContext, prompt: Mapping[str, Any], sampling_params: Mapping[str, Any]
) -> tuple[RolloutRecorder, dict[str, Any]]:
    """The rollout of a trial, and how it is sampled; at temperature zero the likeliest token comes."""
    recipe, settings = context.recipe, context.recipe.evaluation
    task = context.tasks[settings.split, str(prompt["task_id"])]
    temperature = float(prompt["temperature"])
    trial = Trial(task, str(prompt["mode"]), temperature, int(prompt["trial"]))
    params = {**sampling_params, "temperature": temperature, **({} if temperature else {"top_p": 1.0})}
    return trial.recorder(settings, recipe.seed), params


def as_output(rollout: Rollout, step: int) -> AgentLoopOutput:
    """A rollout as verl's row: one flat continuation, and a mask that is 1 on what the policy wrote."""
    return AgentLoopOutput(
        prompt_ids=rollout.prompt.tolist(),
        response_ids=rollout.response.tolist(),
        response_mask=rollout.response_mask.astype(int).tolist(),
        response_logprobs=rollout.sampling_logprobs.tolist(),
        reward_score=rollout.reward,
        num_turns=len(rollout.turns),
        metrics=AgentLoopMetrics(),
        extra_fields={"min_global_steps": step - 1, "max_global_steps": step - 1},
    )
