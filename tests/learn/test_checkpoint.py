"""Checkpoints: exact, whole, kept and found again."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.small import CHAT, model
from sgcd.act.siblings import Cursor
from sgcd.errors import FolderError
from sgcd.learn.checkpoint import Best, State, place_best, read_state, restore, retain, save_checkpoint
from sgcd.learn.masters import MasterAdamW
from sgcd.learn.policy import Policy, load
from sgcd.learn.settings import OptimizerSettings
from sgcd.learn.update import optimizer_of
from sgcd.run import RunFolder

SETTINGS = OptimizerSettings(lr=0.01, weight_decay=0.1)
STATE = State(3, Cursor(position=7, waiting=(2, 5), groups=9, mixed=4), Best(3, 0.1 + 0.2))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "version: 1\n", {})


def move(policy: Any, optimizer: torch.optim.Optimizer, times: int) -> None:
    for number in range(times):
        ids = torch.arange(5)[None] + number
        optimizer.zero_grad()
        policy(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def trained(seed: int, times: int) -> tuple[Policy, MasterAdamW]:
    policy = Policy(model(seed=seed), CHAT)
    optimizer = optimizer_of(policy.model, SETTINGS)
    move(policy.model, optimizer, times)
    return policy, optimizer


def test_training_goes_on_as_if_it_had_never_stopped(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=3)
    save_checkpoint(folder, policy, optimizer, STATE)
    other, others = trained(seed=2, times=1)
    assert restore(folder, other, others) == STATE
    for each, its in ((policy, optimizer), (other, others)):
        move(each.model, its, 2)
    for a, b in zip(policy.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_is_a_policy_like_any_other(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=1)
    save_checkpoint(folder, policy, optimizer, STATE)
    loaded = load(folder.checkpoint_path(3), "float32")
    for a, b in zip(policy.model.parameters(), loaded.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_a_checkpoint_there_is_nothing_to_restore(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=0)
    assert restore(folder, policy, optimizer) is None
    save_checkpoint(folder, policy, optimizer, State())
    assert restore(folder, policy, optimizer) == State()


def test_the_newest_stay_and_the_best(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=1)
    for step in range(1, 6):
        state = State(step, best=Best(min(step, 2), 0.5))
        save_checkpoint(folder, policy, optimizer, state)
        place_best(folder, state)
        retain(folder, 2)
    assert folder.checkpoints() == [4, 5]
    assert read_state(folder.best_path).step == 2
    assert (folder.best_path / "model.safetensors").is_file()


def test_files_are_copied_where_they_cannot_be_linked(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    policy, optimizer = trained(seed=1, times=0)
    save_checkpoint(folder, policy, optimizer, STATE)
    place_best(folder, STATE)
    assert read_state(folder.best_path) == STATE


def test_a_checkpoint_of_another_policy_is_refused(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=1)
    save_checkpoint(folder, policy, optimizer, STATE)
    other = Policy(model(size=CHAT.size + 1), CHAT)
    with pytest.raises(FolderError, match=r"0003: model\.embed_tokens\.weight should have shape .* another policy"):
        restore(folder, other, optimizer_of(other.model, SETTINGS))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_spoilt_checkpoint_is_named(folder: RunFolder, name: str) -> None:
    policy, optimizer = trained(seed=1, times=1)
    for step in (2, 3):
        save_checkpoint(folder, policy, optimizer, State(step))
    place = folder.checkpoint_path(3)
    (place / name).write_bytes((place / name).read_bytes()[:-9])
    with pytest.raises(FolderError, match=r"0003: the checkpoint cannot be read .* remove this folder"):
        restore(folder, policy, optimizer)
    (place / name).unlink()
    with pytest.raises(FolderError, match="remove this folder"):
        restore(folder, policy, optimizer)
