"""verl's server for tests: a Hugging Face model in a Ray actor, one token after the other."""

import asyncio
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput


@ray.remote(num_cpus=0)
class ModelServer:
    def __init__(self, path: str) -> None:
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    async def generate(self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any) -> TokenOutput:
        await asyncio.sleep(0)
        return self._generate(prompt_ids, sampling_params)

    @torch.no_grad()
    def _generate(self, prompt_ids: list[int], params: dict[str, Any]) -> TokenOutput:
        generator = torch.Generator().manual_seed(params["seed"] + len(prompt_ids))
        ids, logprobs, cache = torch.tensor([prompt_ids]), [], None
        sampled: list[int] = []
        while len(sampled) < params["max_tokens"]:
            output = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            temperature = params["temperature"]
            distribution = torch.log_softmax(output.logits[0, -1].float() / (temperature or 1.0), -1)
            sampled_token = torch.multinomial(distribution.exp(), 1, generator=generator)
            token = int(sampled_token if temperature else distribution.argmax())
            sampled.append(token)
            logprobs.append(float(distribution[token]))
            if token in params["stop_token_ids"]:
                break
            ids = torch.tensor([[token]])
        return TokenOutput(token_ids=sampled, log_probs=logprobs, stop_reason="completed")

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        missing = self.model.load_state_dict(weights, strict=False).missing_keys
        tied = set(self.model._tied_weights_keys or ())
        assert not set(missing) - tied, missing

    async def sleep(self) -> None: ...

    async def wake_up(self) -> None: ...

    async def abort_all_requests(self, **_: Any) -> None: ...

    async def resume_generation(self) -> None: ...

    async def clear_kv_cache(self) -> None: ...


def server_name(rank: int) -> str:
    return f"model_server_{rank}"


class ModelReplica(RolloutReplica):
    async def launch_servers(self) -> None:
        path = self.model_config.path
        self.servers = [ModelServer.options(name=server_name(self.replica_rank), max_concurrency=64).remote(path)]
        self._server_handle = self.servers[0]
        self._server_address = server_name(self.replica_rank)


class ModelAdapter(BaseRollout):
    """In the worker: hands new weights to the server."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(self, weights: Any, wire_format: str = "named_tensors", **_: Any) -> None:
        collected = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        rank = torch.distributed.get_rank()
        await ray.get_actor(server_name(rank)).load_weights.remote(collected)
