"""Saves and loads checkpoints: a policy that loads like any other, and the state that a run needs to resume exactly."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sgcd.act.siblings import TaskCursor
from sgcd.errors import DamageError, FolderError, PolicyError
from sgcd.learn.policy.load import Policy, load_model, save_policy
from sgcd.learn.policy.lora import ADAPTER_FOLDER, has_adapter, load_adapter
from sgcd.learn.policy.teacher_policies import MovingAverage
from sgcd.learn.training.optimizer import MasterAdamW
from sgcd.storage.atomic import SCHEMA, atomic_folder, remove
from sgcd.storage.manifest import write_folder_manifest
from sgcd.storage.record_files import reading
from sgcd.storage.run_folder import STATE_FILE, RunFolder
from sgcd.storage.verify import read_checkpoint_state

_WEIGHTS_FILE, _OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
_MASTER_KEY = "master"


@dataclass(frozen=True, slots=True)
class BestStep:
    """The step whose policy had the highest score on held-out tasks, and that score."""

    step: int
    score: float


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The state of a run after `step`, apart from weights and optimizer."""

    step: int = 0
    cursor: TaskCursor = field(default_factory=TaskCursor)
    best: BestStep | None = None
    method: dict[str, Any] = field(default_factory=dict[str, Any])
    """The state of the method, such as a calibrated threshold."""


def save_checkpoint(
    folder: RunFolder,
    policy: Policy,
    optimizer: MasterAdamW,
    *,
    state: TrainerState,
    average: MovingAverage | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint of `state.step`, whole or not at all. `facts` go into the model card."""
    best = None if state.best is None else asdict(state.best)
    state_json = {
        "schema": SCHEMA,
        "step": state.step,
        "cursor": state.cursor.to_json(),
        "best": best,
        "method": state.method,
        "rows": {"evaluation.jsonl": folder.row_files.num_rows("evaluation.jsonl")},
    }
    with atomic_folder(folder.checkpoint_path(state.step)) as path:
        save_policy(policy, path, {"steps": state.step, **(facts or {})})
        save_file(_collect_moments(policy.model, optimizer), path / _OPTIMIZER_FILE)
        if average:
            average.save(path)
        (path / STATE_FILE).write_text(json.dumps(state_json) + "\n")
        write_folder_manifest(path)


def load_checkpoint(
    folder: RunFolder, policy: Policy, optimizer: MasterAdamW, average: MovingAverage | None = None
) -> TrainerState | None:
    """Load weights, optimizer and average from the newest checkpoint; return its state, or None without a
    checkpoint."""
    steps = folder.checkpoint_steps()
    if not steps:
        return None
    path = folder.checkpoint_path(steps[-1])
    model = policy.model
    try:
        state = load_trainer_state(path)
        saved_weights, moments = _load_weights(path, model), load_file(path / _OPTIMIZER_FILE)
    except (OSError, ValueError, KeyError, SafetensorError, PolicyError, DamageError) as problem:
        raise FolderError(
            f"{path}: the checkpoint cannot be read ({problem}); go on from the one before: train --resume --fall-back"
        ) from problem
    _restore_weights(path, model, saved_weights)
    _restore_moments(model, optimizer, moments)
    if average:
        average.load(path)
    return state


def load_trainer_state(path: Path) -> TrainerState:
    state_json = read_checkpoint_state(path)
    best = state_json["best"]
    with reading(path / STATE_FILE):
        return TrainerState(
            state_json["step"],
            TaskCursor.from_json(state_json["cursor"]),
            None if best is None else BestStep(**best),
            state_json["method"],
        )


def link_best(folder: RunFolder, state: TrainerState) -> None:
    """Make `checkpoints/best` the checkpoint of the best step, unless it is already.

    The best step is saved first, so an interrupted run finds its checkpoint and links it on resume. Files are
    hard-linked where the disk allows it, and copied otherwise.
    """
    if state.best is None:
        return
    best, source = folder.best_path, folder.checkpoint_path(state.best.step)
    if not source.exists() or ((best / STATE_FILE).exists() and load_trainer_state(best).step == state.best.step):
        return
    with atomic_folder(best) as path:
        for file in source.rglob("*"):
            if file.is_file():
                link_or_copy(file, path / file.relative_to(source))


def link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def prune_checkpoints(folder: RunFolder, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints; `best` does not count."""
    for step in folder.checkpoint_steps()[:-keep]:
        remove(folder.checkpoint_path(step))


def _load_weights(path: Path, model: Any) -> Mapping[str, Tensor]:
    """The trained weights of a checkpoint, under their names in the model."""
    if has_adapter(model):
        return load_adapter(path / ADAPTER_FOLDER, model)
    saved_weights = load_file(path / _WEIGHTS_FILE)
    if set(saved_weights).issuperset(name for name, _ in model.named_parameters()):
        return saved_weights
    # The names are those of the folder that the model was first loaded from; transformers converts them.
    return dict(load_model(path, str(model.dtype).removeprefix("torch.")).named_parameters())


@torch.no_grad()
def _restore_weights(path: Path, model: Any, saved_weights: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in saved_weights or saved_weights[name].shape != parameter.shape:
            found_shape = list(saved_weights[name].shape) if name in saved_weights else "nothing"
            raise FolderError(
                f"{path}: {name} should have shape {list(parameter.shape)}, found {found_shape}; "
                "the checkpoint is of another policy, start a new run"
            )
        parameter.copy_(saved_weights[name])


def _collect_moments(model: Any, optimizer: MasterAdamW) -> dict[str, Tensor]:
    """The optimizer's state, under the names of the parameters; with the master of each half-precision weight."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        master = optimizer.masters.get(parameter)
        if master is None:
            continue
        moments = {key: value.detach().clone() for key, value in optimizer.state.get(master, {}).items()}
        if master is not parameter:
            moments[_MASTER_KEY] = master.detach().clone()
        tensors |= {f"{name}/{key}": value for key, value in moments.items()}
    return tensors


@torch.no_grad()
def _restore_moments(model: Any, optimizer: MasterAdamW, moments: Mapping[str, Tensor]) -> None:
    moments_of: dict[str, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, moment_name = key.rpartition("/")
        moments_of.setdefault(name, {})[moment_name] = value
    for name, parameter in model.named_parameters():
        if (parameter_moments := moments_of.get(name)) and (master := optimizer.masters.get(parameter)) is not None:
            master.copy_(parameter_moments.pop(_MASTER_KEY, parameter))
            if device_moments := {
                moment_name: value.to(master.device) for moment_name, value in parameter_moments.items()
            }:
                optimizer.state[master] = device_moments
