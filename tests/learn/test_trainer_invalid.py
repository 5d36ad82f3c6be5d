"""What makes a run invalid is planted, and fires: in the row, in the words of a step, and in those of the run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.small import CHAT, Watcher, rollout
from helpers.training_runs import SGCD, train
from sgcd.act.siblings import Gathered
from sgcd.cli.training import answer
from sgcd.contrast.insert import teacher_row
from sgcd.learn import gradient, teaching, trainer
from sgcd.learn.batch import grid
from sgcd.learn.teacher import teach
from sgcd.learn.watch import Watch, foreign
from sgcd.measure.health import of_run, of_step
from sgcd.records import Rollout
from sgcd.run import RunFolder


def said(path: Path) -> str:
    """The last row's verdict, which every output has to repeat."""
    folder = RunFolder.open(path)
    row = folder.metrics()[-1]
    (reason,) = row["invalid"]
    assert f"INVALID: {reason}" in of_step(row)
    assert any(line.startswith(f"INVALID: {reason.partition(':')[0]}") for line in of_run(folder.metrics()))
    told = answer(folder, "test")  # nothing is measured there
    assert told["invalid"][0].partition(":")[0] == reason.partition(":")[0]
    return reason


def test_features_that_are_all_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(model: Any, rollouts: Sequence[Rollout], rows: Any, *given: Any) -> Any:
        return teach(model, rollouts, [np.concatenate([r.prompt, r.response]) for r in rollouts], *given)

    monkeypatch.setattr(teaching, "teach", blind)
    train(tmp_path / "run")
    assert said(tmp_path / "run").startswith("features: the divergence of ")
    train(tmp_path / "zero", method={**SGCD, "gamma": 0})
    assert [row["invalid"] for row in RunFolder.open(tmp_path / "zero").metrics()] == [[], []]


def test_weights_that_do_nothing(tmp_path: Path) -> None:
    calm = {**SGCD, "segments": {**SGCD["segments"], "spike": 1e6}}
    train(tmp_path / "run", method=calm)
    assert said(tmp_path / "run").startswith("weights: inert, 0 % of ")
    assert [bool(row["invalid"]) for row in RunFolder.open(tmp_path / "run").metrics()] == [False, True]


def shifted(rollout: Rollout, by: int) -> Rollout:
    """As if the template had put `by` tokens more before the policy's turn than anyone knew."""
    return replace(
        rollout,
        prompt=rollout.prompt[:-by],
        response=np.concatenate([rollout.prompt[-by:], rollout.response])[: len(rollout.response)],
        insert_at=0,
    )


@pytest.mark.parametrize("method", [SGCD, {"name": "grpo"}], ids=["sgcd", "grpo"])
@pytest.mark.parametrize("how", ["a template that shifts", "a mask that covers glue"])
def test_a_mask_over_what_the_policy_did_not_write(
    how: str, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trainer.gather

    def spoilt(rollout: Rollout) -> Rollout:
        if how == "a template that shifts":
            return shifted(rollout, 2)
        kinds = rollout.kinds.copy()
        kinds[0] = 0
        return replace(rollout, kinds=kinds)

    async def gather(*given: Any) -> Gathered:
        found = await honest(*given)
        kept = (replace(group, rollouts=tuple(map(spoilt, group.rollouts))) for group in found.kept)
        return replace(found, kept=tuple(kept))

    monkeypatch.setattr(trainer, "gather", gather)
    watcher = Watcher()
    train(tmp_path / "run", watcher, method=method, steps=1)
    assert said(tmp_path / "run").startswith("mask: it covers ")
    (row,) = watcher.rows
    assert row["foreign"] == (row["tokens_learnt"] if how == "a template that shifts" else row["kept"] * 3)


@pytest.mark.parametrize("how", ["beside the student", "instead of the student"])
def test_a_teacher_in_the_loss_graph(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = gradient.asked
    done: list[str] = []

    def taught(model: Any, rollouts: Sequence[Rollout], *given: Any) -> Any:
        def shown(rollout: Rollout) -> Rollout:
            row = teacher_row(rollout, np.array([5, 6, 7], np.int32))
            return replace(rollout, prompt=row[: len(row) - len(rollout.response)])

        if how == "instead of the student":
            return honest(model, [shown(each) for each in rollouts], *given)
        if not done:
            done.append("once")
            model(input_ids=grid([shown(rollouts[0])]).ids).logits.sum().backward()
        return honest(model, rollouts, *given)

    monkeypatch.setattr(gradient, "asked", taught)
    watcher = Watcher()
    train(tmp_path / "run", watcher, steps=1)
    assert said(tmp_path / "run").startswith("graph: ")
    (row,) = watcher.rows
    assert row["in_graph"] == (1 if how == "beside the student" else row["kept"] * 3)


def test_the_watch_counts_rows_and_not_padding() -> None:
    class Nothing(torch.nn.Module):
        def forward(self, input_ids: Any = None, inputs_embeds: Any = None) -> None: ...

    model = Nothing()
    watch = Watch(model)
    some = [rollout("xx"), rollout("xx.x", sibling=1)]
    model(grid(some).ids)
    assert watch.others(some) == 0
    model(input_ids=grid(some).ids)
    model(input_ids=grid(some[:1]).ids)  # twice is once too often
    assert watch.others(some) == 1
    model(inputs_embeds=torch.zeros(1))
    assert watch.others(some) == 1
    with torch.no_grad():
        model(input_ids=grid(some).ids + 1)
    assert watch.others([]) == 0


def test_a_turn_is_held_against_the_text_that_was_kept_of_it(tmp_path: Path) -> None:
    watcher = Watcher()
    train(tmp_path / "run", watcher, steps=1)
    played = [each for group in RunFolder.open(tmp_path / "run").read_rollouts(1) for each in group.siblings.rollouts]
    assert {each.ending for each in played} == {"answered", "token_limit"}
    assert [foreign(each, CHAT) for each in played] == [0] * len(played)
    longest = max(played, key=lambda each: each.written)
    assert foreign(shifted(longest, 1), CHAT) == longest.written
