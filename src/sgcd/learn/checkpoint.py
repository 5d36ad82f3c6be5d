"""A checkpoint is a policy that can be loaded as any other, and beside it all that the run needs to go on exactly."""

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

from sgcd.act.siblings import Cursor
from sgcd.errors import FolderError, PolicyError
from sgcd.files import SCHEMA, check_schema, remove, whole_folder
from sgcd.learn.lora import ADAPTER, adapted, stored
from sgcd.learn.masters import MasterAdamW
from sgcd.learn.policy import Policy, save, weights
from sgcd.run import RunFolder

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
MASTER = "master"


@dataclass(frozen=True, slots=True)
class Best:
    """The step whose policy did best on held-out tasks, and how well."""

    step: int
    score: float


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands after `step`, apart from weights and optimiser."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    best: Best | None = None
    method: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the method found out for itself, such as a calibrated threshold."""


def save_checkpoint(
    folder: RunFolder, policy: Policy, optimizer: MasterAdamW, state: State, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the checkpoint of `state.step`: all of it, or none that counts. The policy's card tells `facts`."""
    best = None if state.best is None else asdict(state.best)
    told = {"schema": SCHEMA, "step": state.step, "cursor": state.cursor.state(), "best": best, "method": state.method}
    with whole_folder(folder.checkpoint_path(state.step)) as place:
        save(policy, place, {"steps": state.step, **(facts or {})})
        save_file(_moments(policy.model, optimizer), place / OPTIMIZER)
        (place / STATE).write_text(json.dumps(told) + "\n")


def restore(folder: RunFolder, policy: Policy, optimizer: MasterAdamW) -> State | None:
    """Put weights and optimiser back as the newest checkpoint has them; None when there is none."""
    steps = folder.checkpoints()
    if not steps:
        return None
    place = folder.checkpoint_path(steps[-1])
    model = policy.model
    try:
        state = read_state(place)
        held, moments = _weights(place, model), load_file(place / OPTIMIZER)
    except (OSError, ValueError, KeyError, SafetensorError, PolicyError) as problem:
        raise FolderError(
            f"{place}: the checkpoint cannot be read ({problem}); remove this folder to go on from the one before"
        ) from problem
    _put_weights(place, model, held)
    _put_moments(model, optimizer, moments)
    return state


def read_state(place: Path) -> State:
    told = json.loads((place / STATE).read_text())
    check_schema(told, place / STATE)
    best = told["best"]
    return State(told["step"], Cursor.restore(told["cursor"]), None if best is None else Best(**best), told["method"])


def place_best(folder: RunFolder, state: State) -> None:
    """Make `checkpoints/best` the checkpoint of the best step, if it is not so already.

    A best step is saved at once, so it is the newest checkpoint whenever `best` is not yet in place: a run that was
    stopped in between finds it there. Files are linked where the disk can do that, and copied where it cannot.
    """
    if state.best is None:
        return
    best, source = folder.best_path, folder.checkpoint_path(state.best.step)
    if not source.exists() or ((best / STATE).exists() and read_state(best).step == state.best.step):
        return
    with whole_folder(best) as place:
        for file in source.rglob("*"):
            if file.is_file():
                link_or_copy(file, place / file.relative_to(source))


def link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def retain(folder: RunFolder, keep: int) -> None:
    """Remove all but the newest checkpoints; `best` is not counted among them."""
    for step in folder.checkpoints()[:-keep]:
        remove(folder.checkpoint_path(step))


def _weights(place: Path, model: Any) -> Mapping[str, Tensor]:
    """What a checkpoint holds of the weights that are trained, by the names that they have in the model."""
    if adapted(model):
        return stored(place / ADAPTER, model)
    held = load_file(place / WEIGHTS)
    if set(held).issuperset(name for name, _ in model.named_parameters()):
        return held
    # Written under the names of the folder that the model once came from; transformers knows the way back.
    return dict(weights(place, str(model.dtype).removeprefix("torch.")).named_parameters())


@torch.no_grad()
def _put_weights(place: Path, model: Any, held: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in held or held[name].shape != parameter.shape:
            found = list(held[name].shape) if name in held else "nothing"
            raise FolderError(
                f"{place}: {name} should have shape {list(parameter.shape)}, found {found}; "
                "the checkpoint is of another policy, start a new run"
            )
        parameter.copy_(held[name])


def _moments(model: Any, optimizer: MasterAdamW) -> dict[str, Tensor]:
    """The optimiser's state, each tensor under its parameter's name; of weights with fewer bits also the master."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        master = optimizer.masters.get(parameter)
        if master is None:
            continue
        kept = {key: value.detach().clone() for key, value in optimizer.state.get(master, {}).items()}
        if master is not parameter:
            kept[MASTER] = master.detach().clone()
        found |= {f"{name}/{key}": value for key, value in kept.items()}
    return found


@torch.no_grad()
def _put_moments(model: Any, optimizer: MasterAdamW, moments: Mapping[str, Tensor]) -> None:
    kept: dict[str, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, what = key.rpartition("/")
        kept.setdefault(name, {})[what] = value
    for name, parameter in model.named_parameters():
        if (told := kept.get(name)) and (master := optimizer.masters.get(parameter)) is not None:
            master.copy_(told.pop(MASTER, parameter))
            if on := {what: value.to(master.device) for what, value in told.items()}:
                optimizer.state[master] = on
