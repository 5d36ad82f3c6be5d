"""What TRL's trainers learn from our recorded rollouts is what we learn from them: the oracle of our surrogate."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")
from helpers.scoring import teacher_of
from sgcd.bench.step import (
    CHAT,
    TOP_K,
    TURN_TOKENS,
    build_random_groups,
    build_small_qwen,
    build_step_arms,
    build_teacher_rollouts,
)
from sgcd.credit.divergence import divergence_features, divergence_of, outcomes

GROUPS, SIBLINGS, TURNS = 2, 2, 2


@pytest.fixture(scope="module")
def theirs() -> Any:
    """bench/trl_steps.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
        return import_module("trl_steps")


@pytest.fixture(scope="module")
def batch(theirs: Any) -> dict[str, Any]:
    return theirs.build_trl_batch(GROUPS, SIBLINGS, TURNS)


def gradients(model: Any, step: Callable[[], object]) -> list[Tensor]:
    """What a step adds up, before it is clipped and used."""
    found: dict[int, Tensor] = {}
    parameters = list(model.parameters())

    def keep(index: int) -> Callable[[Any], None]:
        return lambda parameter: found.__setitem__(index, parameter.grad.clone())

    hooks = [each.register_post_accumulate_grad_hook(keep(index)) for index, each in enumerate(parameters)]
    step()
    for hook in hooks:
        hook.remove()
    return [found[index] for index in range(len(parameters))]


def apart(ours: list[Tensor], other: list[Tensor]) -> float:
    """The largest relative distance of any weight's gradients."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, other, strict=True))


@pytest.fixture(scope="module")
def ours() -> list[Tensor]:
    model = build_small_qwen(CHAT.vocab_size)
    return gradients(model, build_step_arms(model, GROUPS, SIBLINGS, TURNS * TURN_TOKENS)[0]["grpo"])


@pytest.mark.parametrize("arm", ["GRPO", "COMPLETION"])
def test_the_gradient_of_grpo_is_that_of_trl(arm: str, theirs: Any, batch: dict[str, Any], ours: list[Tensor]) -> None:
    trainer = theirs.build_trl_trainer(getattr(theirs, arm), build_small_qwen(CHAT.vocab_size), SIBLINGS)
    found = gradients(trainer.model, theirs.build_trl_step(trainer, batch))
    assert apart(ours, found) < 1e-5


def test_another_mask_or_another_advantage_is_another_gradient(
    theirs: Any, batch: dict[str, Any], ours: list[Tensor]
) -> None:
    trainer = theirs.build_trl_trainer(theirs.GRPO, build_small_qwen(CHAT.vocab_size), SIBLINGS)
    everything = {**batch, "tool_mask": torch.ones_like(batch["tool_mask"])}
    softer = {**batch, "advantages": batch["advantages"] * 1.001}
    for other in (everything, softer):
        trainer.model.zero_grad()
        assert apart(ours, gradients(trainer.model, trainer.compute_loss(trainer.model, other).backward)) > 5e-4


def test_the_teacher_of_sdpo_is_ours(theirs: Any, batch: dict[str, Any]) -> None:
    """What it says where the policy wrote: the same likeliest ids, with the same log-probabilities."""
    both = logits_of(theirs, batch)
    top = both.teacher_logits[batch["tool_mask"].bool()].log_softmax(-1).topk(TOP_K)
    played = build_random_groups(GROUPS, SIBLINGS, TURNS)
    rollouts = [rollout for group in played for rollout in group.rollouts]
    rows = [np.concatenate([row.prompt, row.response]) for row in build_teacher_rollouts(played)]
    lessons = teacher_of(build_small_qwen(CHAT.vocab_size), rollouts, rows, 1.0, 2**15, TOP_K)
    ids, logp = (
        torch.cat(parts) for parts in zip(*((each.topk_ids, each.outcome_logprobs) for each in lessons), strict=True)
    )
    ids, order = ids.long().sort()
    assert torch.equal(ids, top.indices.sort().values)
    assert torch.allclose(logp[:, :TOP_K].gather(1, order), top.values.gather(1, top.indices.argsort()), atol=1e-5)


@pytest.mark.parametrize(("kind", "alpha"), [("reverse_kl", 1.0), ("forward_kl", 0.0), ("jsd", 0.5)])
def test_the_divergence_of_sdpo_is_ours(kind: Any, alpha: float, theirs: Any, batch: dict[str, Any]) -> None:
    """On one support: the teacher's K likeliest, the observed id and a tail; and on the whole vocabulary."""
    trl: Any = import_module("trl.experimental.sdpo.loss_utils")
    both, there = logits_of(theirs, batch), batch["tool_mask"].bool()
    student, teacher, observed = both.student_logits[there], both.teacher_logits[there], both.completion_ids[there]
    ours = divergence_features(student, teacher, observed, k=TOP_K, divergence=kind)[0]
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    ids = q.topk(TOP_K).indices
    listed = (ids == observed[:, None]).any(-1)
    assert 0 < int(listed.sum()) < len(listed)
    for some, support in ((listed, ids), (~listed, torch.cat([ids, observed[:, None]], 1))):
        at = [trl.add_tail_bucket(logp[some].gather(1, support[some])) for logp in (p, q)]
        assert torch.allclose(ours[some], trl.compute_divergence(*at, alpha), atol=1e-5)
    size = student.shape[-1]
    how = {"distillation_topk": size, "distillation_alpha": alpha, "distillation_add_tail": False}
    whole = trl.compute_topk_self_distillation_loss(student, teacher, **how)
    assert torch.allclose(divergence_features(student, teacher, observed, k=size, divergence=kind)[0], whole, atol=1e-5)
    assert (whole - ours).max() > 1e-3


@pytest.mark.parametrize(("kind", "alpha"), [("reverse_kl", 1.0), ("forward_kl", 0.0), ("jsd", 0.5)])
def test_sdpo_over_the_student_s_ids_is_ours(kind: Any, alpha: float, theirs: Any, batch: dict[str, Any]) -> None:
    """The student's K likeliest and a tail, wherever the observed id is among these; ours keeps it apart elsewhere."""
    trl: Any = import_module("trl.experimental.sdpo.loss_utils")
    both, there = logits_of(theirs, batch), batch["tool_mask"].bool()
    student, teacher, observed = both.student_logits[there], both.teacher_logits[there], both.completion_ids[there]
    ids = student.topk(TOP_K).indices
    ours = divergence_of(outcomes(student, ids, observed), outcomes(teacher, ids, observed), kind)
    how = {"distillation_topk": TOP_K, "distillation_alpha": alpha, "distillation_add_tail": True}
    whole = trl.compute_topk_self_distillation_loss(student, teacher, **how)
    listed = (ids == observed[:, None]).any(-1)
    assert int(listed.sum()) > 0
    assert torch.allclose(ours[listed], whole[listed], atol=1e-5)
    assert (ours >= whole - 1e-5).all()  # one outcome more never lowers a divergence


@torch.no_grad()
def logits_of(theirs: Any, batch: dict[str, Any]) -> Any:
    """As TRL's trainer of SDPO computes them, of student and teacher, over the completions."""
    trainer = theirs.build_trl_trainer(theirs.SDPO, build_small_qwen(CHAT.vocab_size), SIBLINGS)
    return trainer._compute_teacher_student_logits(trainer.model, trainer.teacher_model, batch)
