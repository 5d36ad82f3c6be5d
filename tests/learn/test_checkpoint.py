"""Checkpoints: exact, whole, kept and found again."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_policy import CHAT, model
from sgcd.act.siblings import TaskCursor
from sgcd.errors import FolderError
from sgcd.learn.policy.checkpoint import (
    BestStep,
    TrainerState,
    link_best,
    load_checkpoint,
    load_trainer_state,
    prune_checkpoints,
    save_checkpoint,
)
from sgcd.learn.policy.load import Policy, load_policy
from sgcd.learn.settings import OptimizerSettings
from sgcd.learn.training.optimizer import MasterAdamW, build_optimizer
from sgcd.storage.run_folder import RunFolder

SETTINGS = OptimizerSettings(lr=0.01, weight_decay=0.1)
STATE = TrainerState(3, TaskCursor(position=7, skipped=(2, 5), num_groups=9, num_mixed=4), BestStep(3, 0.1 + 0.2))


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
    optimizer = build_optimizer(policy.model, SETTINGS)
    move(policy.model, optimizer, times)
    return policy, optimizer


def test_training_goes_on_as_if_it_had_never_stopped(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=3)
    save_checkpoint(folder, policy, optimizer, state=STATE)
    other, others = trained(seed=2, times=1)
    assert load_checkpoint(folder, other, others) == STATE
    for each, its in ((policy, optimizer), (other, others)):
        move(each.model, its, 2)
    for a, b in zip(policy.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_is_a_policy_like_any_other(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=1)
    save_checkpoint(folder, policy, optimizer, state=STATE)
    loaded = load_policy(folder.checkpoint_path(3), "float32")
    for a, b in zip(policy.model.parameters(), loaded.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_a_checkpoint_there_is_nothing_to_restore(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=0)
    assert load_checkpoint(folder, policy, optimizer) is None
    save_checkpoint(folder, policy, optimizer, state=TrainerState())
    assert load_checkpoint(folder, policy, optimizer) == TrainerState()


def test_the_newest_stay_and_the_best(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=1)
    for step in range(1, 6):
        state = TrainerState(step, best=BestStep(min(step, 2), 0.5))
        save_checkpoint(folder, policy, optimizer, state=state)
        link_best(folder, state)
        prune_checkpoints(folder, 2)
    assert folder.checkpoint_steps() == [4, 5]
    assert load_trainer_state(folder.best_path).step == 2
    assert (folder.best_path / "model.safetensors").is_file()


def test_files_are_copied_where_they_cannot_be_linked(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    policy, optimizer = trained(seed=1, times=0)
    save_checkpoint(folder, policy, optimizer, state=STATE)
    link_best(folder, STATE)
    assert load_trainer_state(folder.best_path) == STATE


def test_a_checkpoint_of_another_policy_is_refused(folder: RunFolder) -> None:
    policy, optimizer = trained(seed=1, times=1)
    save_checkpoint(folder, policy, optimizer, state=STATE)
    other = Policy(model(size=CHAT.vocab_size + 1), CHAT)
    with pytest.raises(FolderError, match=r"0003: model\.embed_tokens\.weight should have shape .* another policy"):
        load_checkpoint(folder, other, build_optimizer(other.model, SETTINGS))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_spoilt_checkpoint_is_named(folder: RunFolder, name: str) -> None:
    policy, optimizer = trained(seed=1, times=1)
    for step in (2, 3):
        save_checkpoint(folder, policy, optimizer, state=TrainerState(step))
    place = folder.checkpoint_path(3)
    (place / name).write_bytes((place / name).read_bytes()[:-9])
    with pytest.raises(FolderError, match=r"0003: the checkpoint cannot be read .* --resume --fall-back"):
        load_checkpoint(folder, policy, optimizer)
    (place / name).unlink()
    with pytest.raises(FolderError, match="--resume --fall-back"):
        load_checkpoint(folder, policy, optimizer)
