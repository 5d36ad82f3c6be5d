"""AdamW whose own copy of each weight is float32, where the model's has fewer bits."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

HALF_DTYPES = (torch.bfloat16, torch.float16)


class MasterAdamW(torch.optim.AdamW):
    """A step of 1e-6 is lost in a bfloat16 weight, and so is a small gradient that is added to a large one.

    So the optimiser moves float32 copies, and the gradient of each micro-batch is added to a float32 sum and let go.
    After a step, the model has the copies as far as its bits reach. Weights of 32 bits and more are their own masters.
    """

    def __init__(self, parameters: Iterable[Tensor], **options: Any) -> None:
        self.masters = {parameter: _float32_copy(parameter) for parameter in parameters}
        super().__init__([*self.masters.values()], **options)
        for weight, master in self.masters.items():
            if master is not weight:
                weight.register_post_accumulate_grad_hook(self._accumulate_gradient)
        self.register_step_post_hook(lambda *_: self.copy_to_model())

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model what the masters hold."""
        for weight, master in self.masters.items():
            if master is not weight:
                weight.copy_(master)

    def _accumulate_gradient(self, weight: Tensor) -> None:
        if weight.grad is None:
            return
        master = self.masters[weight]
        master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
        weight.grad = None


def _float32_copy(weight: Tensor) -> Tensor:
    return weight.detach().float().requires_grad_() if weight.dtype in HALF_DTYPES else weight
