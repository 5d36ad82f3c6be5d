"""The policy as the run began, for the KL term of the surrogate."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from sgcd.learn.lora import adapted, bare
from sgcd.learn.scoring import logps
from sgcd.records import Floats, Rollout


class Initial:
    """A frozen copy; under LoRA the model itself with its adapter left out, which costs no memory."""

    def __init__(self, model: Any) -> None:
        self._model = model if adapted(model) else deepcopy(model).requires_grad_(False)

    def logps(self, rollouts: Sequence[Rollout], temperature: float, tokens: int, room: int) -> list[Floats]:
        with bare(self._model):
            return logps(self._model, rollouts, temperature, tokens, room)
