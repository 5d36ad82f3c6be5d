"""AdamW whose own copy of each weight is float32, where the model's has fewer bits."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SHORT = (torch.bfloat16, torch.float16)


class MasterAdamW(torch.optim.AdamW):
    """A step of 1e-6 is lost in a bfloat16 weight, and so is a small gradient that is added to a large one.

    So the optimiser moves float32 copies, and the gradient of each micro-batch is added to a float32 sum and let go.
    After a step, the model has the copies as far as its bits reach. Weights of 32 bits and more are their own masters.
    """

    def __init__(self, parameters: Iterable[Tensor], **how: Any) -> None:
        self.masters = {each: _master(each) for each in parameters}
        super().__init__([*self.masters.values()], **how)
        for weight, master in self.masters.items():
            if master is not weight:
                weight.register_post_accumulate_grad_hook(self._take)
        self.register_step_post_hook(lambda *_: self.publish())

    @torch.no_grad()
    def publish(self) -> None:
        """Give the model what the masters hold."""
        for weight, master in self.masters.items():
            if master is not weight:
                weight.copy_(master)

    def _take(self, weight: Tensor) -> None:
        if weight.grad is None:
            return
        master = self.masters[weight]
        master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
        weight.grad = None


def _master(weight: Tensor) -> Tensor:
    return weight.detach().float().requires_grad_() if weight.dtype in SHORT else weight
