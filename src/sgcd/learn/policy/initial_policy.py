"""The policy as the run began, for the KL term of the surrogate."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from sgcd.learn.policy.lora import adapter_disabled, has_adapter
from sgcd.learn.scoring.logprobs import score_logprobs
from sgcd.records import Floats, Rollout


class InitialPolicy:
    """A frozen copy; under LoRA the model itself with its adapter left out, which costs no memory."""

    def __init__(self, model: Any) -> None:
        self._model = model if has_adapter(model) else deepcopy(model).requires_grad_(False)

    def score_logprobs(
        self, rollouts: Sequence[Rollout], temperature: float, micro_batch_tokens: int, logits_bytes: int
    ) -> list[Floats]:
        with adapter_disabled(self._model):
            return score_logprobs(self._model, rollouts, temperature, micro_batch_tokens, logits_bytes)
