"""verl on the CPU, for tests: a platform, gloo, its FSDP engine, and a Hugging Face model in place of its server.

verl imports this module in each of its processes (VERL_USE_EXTERNAL_MODULES).
"""

import os
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

_DEVICE_MODULE = SimpleNamespace(
    is_available=lambda: True,
    current_device=lambda: torch.device("cpu"),
    device_count=lambda: 1,
    set_device=lambda _: None,
    synchronize=lambda *_: None,
    empty_cache=lambda: None,
    memory_allocated=lambda *_: 0,
    memory_reserved=lambda *_: 0,
    max_memory_allocated=lambda *_: 0,
    max_memory_reserved=lambda *_: 0,
    reset_peak_memory_stats=lambda *_: None,
    mem_get_info=lambda *_: (0, 0),
    get_device_name=lambda *_: "cpu",
    manual_seed=torch.manual_seed,
    manual_seed_all=torch.manual_seed,
    get_rng_state=torch.get_rng_state,
    set_rng_state=torch.set_rng_state,
    ipc_collect=lambda: None,
)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    device_name = "cpu"  # pyright: ignore[reportAssignmentType]
    vendor_name = "cpu"  # pyright: ignore[reportAssignmentType]
    device_module = _DEVICE_MODULE  # pyright: ignore[reportAssignmentType]

    def is_available(self):
        return True

    def current_device(self):
        return torch.device("cpu")

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg):
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return "GPU"  # Ray is asked for GPUs that it only pretends to have

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


def load_server() -> type[Any]:
    from helpers.verl_server import ModelReplica

    return ModelReplica


def register() -> None:
    """Everything but the platform, which has to be there before the rest of verl is imported."""
    import verl.utils.distributed as distributed
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    initialize = distributed.initialize_global_process_group_ray
    distributed.initialize_global_process_group_ray = lambda timeout_second=None, backend=None: initialize(
        timeout_second, "gloo"
    )
    import verl.workers.engine_workers as workers

    workers.initialize_global_process_group_ray = distributed.initialize_global_process_group_ray
    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(FSDPEngineWithLMHead)
    _ROLLOUT_REGISTRY[("model", "async")] = "helpers.verl_server.ModelAdapter"
    RolloutReplicaRegistry.register("model", load_server)


if os.environ.get("VERL_PLATFORM") == "cpu":
    register()
