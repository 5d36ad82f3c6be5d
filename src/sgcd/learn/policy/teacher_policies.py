"""The models of teachers besides the policy itself: as it began, its moving average, and another policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sgcd.errors import FolderError, PolicyError
from sgcd.learn.policy.head import check_head, get_head
from sgcd.learn.policy.load import Policy, load_policy
from sgcd.learn.policy.lora import adapter_disabled, has_adapter
from sgcd.learn.settings import PolicySettings
from sgcd.learn.training.optimizer import MasterAdamW
from sgcd.settings import TeacherModel

_AVERAGE_FILE = "average.safetensors"


class InitialPolicy:
    """A frozen copy of the policy when the run began; with LoRA the same model without its adapter, which takes no
    memory."""

    def __init__(self, model: Any) -> None:
        self._model = model if has_adapter(model) else deepcopy(model).requires_grad_(False)

    @contextmanager
    def active(self) -> Iterator[Any]:
        """The model, while it is the initial policy."""
        with adapter_disabled(self._model):
            yield self._model


class MovingAverage:
    """The moving average of the trained weights, in float32; with LoRA that of the adapter alone.

    It starts at the policy. After each step it keeps `decay` of itself, and takes the rest from the policy. It has no
    model of its own: while it scores, its weights stand in the policy's place.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._weights = {
            name: parameter.detach().float().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, optimizer: MasterAdamW) -> None:
        """Move towards the weights after a step; half-precision weights by their float32 masters."""
        for name, parameter in self._trained():
            self._weights[name].lerp_(optimizer.masters[parameter].detach().float(), 1 - self._decay)

    @contextmanager
    def active(self) -> Iterator[Any]:
        """The model, while its trained weights are the average."""
        own_weights = {name: parameter.data for name, parameter in self._trained()}
        try:
            for name, parameter in self._trained():
                parameter.data = self._weights[name].to(parameter.dtype)
            yield self._model
        finally:
            for name, parameter in self._trained():
                parameter.data = own_weights[name]

    def save(self, folder: Path) -> None:
        save_file(self._weights, folder / _AVERAGE_FILE)

    def load(self, folder: Path) -> None:
        """From a checkpoint of the same run."""
        saved_weights = load_file(folder / _AVERAGE_FILE) if (folder / _AVERAGE_FILE).exists() else {}
        for name, weight in self._weights.items():
            if name not in saved_weights or saved_weights[name].shape != weight.shape:
                raise FolderError(
                    f"{folder / _AVERAGE_FILE}: the moving average of {name} is not there in the shape of the policy; "
                    "go on from the checkpoint before: train --resume --fall-back"
                )
            weight.copy_(saved_weights[name])

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, parameter) for name, parameter in self._model.named_parameters() if name in self._weights)


@dataclass(frozen=True, slots=True)
class TeacherPolicies:
    """The models that a run keeps for its teachers; None for those that no one reads."""

    initial: InitialPolicy | None = None
    average: MovingAverage | None = None
    outside: Any = None
    skill: str = ""
    """The text that a teacher with the context skill reads."""

    @contextmanager
    def active(self, name: TeacherModel, policy: Any) -> Iterator[Any]:
        """The model of a teacher, while it is that model."""
        if name in ("current", "outside"):
            yield policy if name == "current" else self.outside
            return
        kept = self.initial if name == "initial" else self.average
        assert kept is not None, "the trainer keeps the models that the method's teachers need"
        with kept.active() as model:
            yield model


def load_outside_teacher(start: str, settings: PolicySettings, policy: Policy) -> Any:
    """Another policy's model, frozen. Refused unless it gives every token id the same meaning as the policy."""
    teacher = load_policy(start, settings.dtype, settings.attn_implementation, key="teacher.start")
    sizes = [get_head(model).vocab_size for model in (teacher.model, policy.model)]
    vocabularies = [chat.tokenizer.get_vocab() for chat in (teacher.chat, policy.chat)]
    if vocabularies[0] != vocabularies[1] or sizes[0] != sizes[1]:
        what = "tokenizer" if vocabularies[0] != vocabularies[1] else "number of ids in its head"
        raise PolicyError(
            f"teacher.start: {start} has another {what} than {settings.start} ({sizes[0]:,} ids, the policy "
            f"{sizes[1]:,}); a teacher scores the policy's own token ids: give a policy with the same tokenizer"
        )
    check_head(teacher.model)
    device: Any = next(policy.model.parameters()).device
    return teacher.model.to(device).requires_grad_(False)
