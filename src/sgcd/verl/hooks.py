"""All that the other modules use of verl, and what it has to look like: the one place where a new version fails."""

import inspect
from collections.abc import Callable
from typing import Any

from sgcd.verl import check_installed

check_installed()

import transfer_queue as tq  # noqa: E402 - only where verl is the one that it was tested with
from transfer_queue import KVBatchMeta  # noqa: E402
from verl.experimental.agent_loop.agent_loop import (  # noqa: E402
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    AgentLoopWorker,
)
from verl.experimental.agent_loop.agent_loop import register as register_agent_loop  # noqa: E402
from verl.single_controller.base.decorator import (  # noqa: E402
    make_nd_compute_dataproto_dispatch_fn,
    register,
)
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo  # noqa: E402
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, PPOTrainerSync  # noqa: E402
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer  # noqa: E402
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.config import validate_config  # noqa: E402
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead  # noqa: E402
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker  # noqa: E402
from verl.workers.rollout.llm_server import LLMServerClient  # noqa: E402
from verl.workers.utils.padding import response_from_nested  # noqa: E402

__all__ = [
    "TRAINER_REGISTRY",
    "ActorRolloutRefWorker",
    "AgentLoopBase",
    "AgentLoopMetrics",
    "AgentLoopOutput",
    "KVBatchMeta",
    "PPOTrainerSync",
    "TaskRunnerV1",
    "make_nd_compute_dataproto_dispatch_fn",
    "register",
    "register_agent_loop",
    "response_from_nested",
    "run_ppo",
    "tq",
    "tu",
    "validate_config",
]

AGENT_LOOP = "sgcd"
"""The name of the agent loop in verl's configuration."""
TRAINER_MODE = "sync"
"""The mode whose trainer is replaced: verl gives every other one the asynchronous buffer."""

SIGNATURES: dict[Callable[..., Any], str] = {
    PPOTrainerSync._build_replay_buffer: "self",
    PPOTrainerSync._init_dataloader: "self",
    PPOTrainerSync._init_resource_pool_mgr: "self",
    PPOTrainerSync.prepare_step: "self",
    PPOTrainerSync._compute_old_log_prob: "self, batch, metrics",
    PPOTrainerSync._compute_advantage: "self, batch, metrics",
    PPOTrainerSync._update_actor: "self, batch, metrics",
    PPOTrainerSync._validate: "self",
    PPOTrainerSync.fit: "self, agent_loop_manager",
    ReplayBuffer.sample: "self, global_steps, partition_id, batch_size",
    AgentLoopManagerTQ.generate_sequences: "self, prompts",
    AgentLoopBase.run: "self, sampling_params, kwargs",
    AgentLoopWorker._run_agent_loop: "self, sampling_params, trajectory, agent_name, trace, kwargs",
    LLMServerClient.generate: "self, request_id, prompt_ids, sampling_params, image_data, video_data, audio_data, "
    "mm_processor_kwargs, kwargs",
    ActorRolloutRefWorker.compute_log_prob: "self, data",
    TrainingWorker.infer_batch: "self, data",
    TrainingWorker.set_loss_fn: "self, loss_fn",
    FSDPEngineWithLMHead.prepare_model_outputs: "self, output, output_args, micro_batch, logits_processor_func",
    response_from_nested: "tensor, response_mask",
    tq.kv_batch_put: "keys, partition_id, fields, tags, data_parser",
    tq.kv_batch_get: "keys, partition_id, select_fields",
    tq.kv_list: "partition_id",
    tq.kv_clear: "keys, partition_id",
    tq.async_kv_put: "key, partition_id, fields, tag, data_parser",
}
"""The parameters that each function of verl has in the version that was tested."""


_RAY_PARAMETER = "_ray_trace_ctx"
"""Ray adds it to the methods of its actors."""


def describe_changes() -> list[str]:
    """The functions of verl whose parameters are others than in the version that was tested."""
    found = {
        function: ", ".join(name for name in inspect.signature(function).parameters if name != _RAY_PARAMETER)
        for function in SIGNATURES
    }
    return [
        f"{function.__qualname__}: expected ({expected}), got ({found[function]})"
        for function, expected in SIGNATURES.items()
        if found[function] != expected
    ]
