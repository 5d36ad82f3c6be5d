"""What makes a run invalid is planted, and fires: in the row, in the words of a step, and in those of the run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.tiny_policy import CHAT, Watcher, rollout
from helpers.training_runs import SGCD, train
from sgcd.act.siblings import CollectedGroups
from sgcd.cli.commands.train import summarise_run
from sgcd.contrast.insert import build_teacher_input_ids
from sgcd.learn.scoring.forward import pad_batch
from sgcd.learn.scoring.teacher import score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput, with_student_prompt
from sgcd.learn.training import gradient, trainer
from sgcd.learn.training import teacher_scorer as teaching
from sgcd.learn.training.audit import ContextAudit, count_foreign_tokens
from sgcd.measure.health import run_warnings, step_warnings
from sgcd.records import Rollout
from sgcd.storage.run_folder import RunFolder


def said(path: Path) -> str:
    """The last row's verdict, which every output has to repeat."""
    folder = RunFolder.open(path)
    row = folder.read_metrics()[-1]
    (reason,) = row.invalid
    assert f"INVALID: {reason}" in step_warnings(row)
    assert any(line.startswith(f"INVALID: {reason.partition(':')[0]}") for line in run_warnings(folder.read_metrics()))
    told = summarise_run(folder, "test")  # nothing is measured there
    assert told["invalid"][0].partition(":")[0] == reason.partition(":")[0]
    return reason


@pytest.mark.slow
def test_features_that_are_all_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(model: Any, inputs: Sequence[TeacherInput], **named: Any) -> Any:
        return score_teacher(model, with_student_prompt([each.rollout for each in inputs]), **named)

    monkeypatch.setattr(teaching, "score_teacher", blind)
    train(tmp_path / "run")
    assert said(tmp_path / "run").startswith("features: the divergence of ")
    train(tmp_path / "zero", method={**SGCD, "gamma": 0})
    assert [row.invalid for row in RunFolder.open(tmp_path / "zero").read_metrics()] == [[], []]


def test_weights_that_do_nothing(tmp_path: Path) -> None:
    calm = {**SGCD, "segments": {**SGCD["segments"], "spike": 1e6}}
    train(tmp_path / "run", method=calm)
    assert said(tmp_path / "run").startswith("weights: inert, 0 % of ")
    assert [bool(row.invalid) for row in RunFolder.open(tmp_path / "run").read_metrics()] == [False, True]


def shifted(rollout: Rollout, by: int) -> Rollout:
    """As if the template had put `by` tokens more before the policy's turn than anyone knew."""
    return replace(
        rollout,
        prompt=rollout.prompt[:-by],
        response=np.concatenate([rollout.prompt[-by:], rollout.response])[: len(rollout.response)],
        reference_position=0,
    )


@pytest.mark.parametrize("method", [SGCD, {"name": "grpo"}], ids=["sgcd", "grpo"])
@pytest.mark.parametrize("how", ["a template that shifts", "a mask that covers glue"])
def test_a_mask_over_what_the_policy_did_not_write(
    how: str, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trainer.collect_mixed_groups

    def spoilt(rollout: Rollout) -> Rollout:
        if how == "a template that shifts":
            return shifted(rollout, 2)
        kinds = rollout.token_kinds.copy()
        kinds[0] = 0
        return replace(rollout, token_kinds=kinds)

    async def gather(*given: Any, **more: Any) -> CollectedGroups:
        found = await honest(*given, **more)
        kept = (replace(group, rollouts=tuple(map(spoilt, group.rollouts))) for group in found.kept)
        return replace(found, kept=tuple(kept))

    monkeypatch.setattr(trainer, "collect_mixed_groups", gather)
    watcher = Watcher()
    train(tmp_path / "run", watcher, method=method, steps=1)
    assert said(tmp_path / "run").startswith("mask: it covers ")
    (row,) = watcher.rows
    assert row.foreign == (row.tokens_learnt if how == "a template that shifts" else row.kept * 3)


@pytest.mark.parametrize("how", ["beside the student", "instead of the student"])
def test_a_teacher_in_the_loss_graph(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = gradient.score_student
    done: list[str] = []

    def taught(model: Any, rollouts: Sequence[Rollout], *given: Any, **named: Any) -> Any:
        def shown(rollout: Rollout) -> Rollout:
            row = build_teacher_input_ids(rollout, np.array([5, 6, 7], np.int32))
            return replace(rollout, prompt=row[: len(row) - len(rollout.response)])

        if how == "instead of the student":
            return honest(model, [shown(each) for each in rollouts], *given, **named)
        if not done:
            done.append("once")
            model(input_ids=pad_batch([shown(rollouts[0])]).input_ids).logits.sum().backward()
        return honest(model, rollouts, *given, **named)

    monkeypatch.setattr(gradient, "score_student", taught)
    watcher = Watcher()
    train(tmp_path / "run", watcher, steps=1)
    assert said(tmp_path / "run").startswith("graph: ")
    (row,) = watcher.rows
    assert row.in_graph == (1 if how == "beside the student" else row.kept * 3)


def test_the_watch_counts_rows_and_not_padding() -> None:
    class Nothing(torch.nn.Module):
        def forward(self, input_ids: Any = None, inputs_embeds: Any = None) -> None: ...

    model = Nothing()
    watch = ContextAudit(model)
    some = [rollout("xx"), rollout("xx.x", sibling=1)]
    model(pad_batch(some).input_ids)
    assert watch.count_unexpected(some) == 0
    model(input_ids=pad_batch(some).input_ids)
    model(input_ids=pad_batch(some[:1]).input_ids)  # twice is once too often
    assert watch.count_unexpected(some) == 1
    model(inputs_embeds=torch.zeros(1))
    assert watch.count_unexpected(some) == 1
    with torch.no_grad():
        model(input_ids=pad_batch(some).input_ids + 1)
    assert watch.count_unexpected([]) == 0


def test_a_turn_is_held_against_the_text_that_was_kept_of_it(tmp_path: Path) -> None:
    watcher = Watcher()
    train(tmp_path / "run", watcher, steps=1)
    played = [each for group in RunFolder.open(tmp_path / "run").read_rollouts(1) for each in group.group.rollouts]
    assert {each.end_reason for each in played} == {"answered", "token_limit"}
    assert [count_foreign_tokens(each, CHAT) for each in played] == [0] * len(played)
    longest = max(played, key=lambda each: each.num_policy_tokens)
    assert count_foreign_tokens(shifted(longest, 1), CHAT) == longest.num_policy_tokens
