"""The policy as it was when the run began: the initial policy of a KL term, or a teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from sgcd.learn.policy.lora import adapter_disabled, has_adapter


class InitialPolicy:
    """A frozen copy; with LoRA the same model without its adapter, which takes no memory."""

    def __init__(self, model: Any) -> None:
        self._model = model if has_adapter(model) else deepcopy(model).requires_grad_(False)

    @contextmanager
    def active(self) -> Iterator[Any]:
        """The model, while it is the initial policy."""
        with adapter_disabled(self._model):
            yield self._model
