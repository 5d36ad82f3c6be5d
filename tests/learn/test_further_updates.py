"""Several updates a batch: each is the gradient of the published loss at the policy as it then is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.published_losses import published_loss, tokens_of
from helpers.tiny_policy import Watcher, make_context_sensitive, model
from helpers.training_runs import contents, group, policy, train
from sgcd.contrast.insert import build_teacher_input_ids
from sgcd.credit.methods import build_method
from sgcd.credit.settings import DirectSdSettings
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.teacher import score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.learn.settings import PRESETS, CovarianceSettings, SurrogateSettings
from sgcd.learn.training import teacher_scorer, trainer
from sgcd.learn.training.gradient import CreditedGroup, GradientAccumulator, accumulate_further_update
from sgcd.learn.training.optimizer import mean_over_updates
from sgcd.learn.training.step import GroupLearner
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.teacher_scorer import ScoredGroup
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.records import Rollout
from sgcd.storage.metrics import OptimizerMetrics

VOCABULARY, MAX_TOKENS = 50, 60
GROUP = group("xx..xxx", "xxxx", "xxx.x.x.x", wins=1)
ADVANTAGES = [1.5, -0.5, -1.0]
CONFIG = ForwardConfig(0.7, 24)
DIRECT_SD = DirectSdSettings(name="direct_sd", k=VOCABULARY, coefficient=0.3)
TWICE: dict[str, Any] = {"lr": 0.05, "warmup": 2, "updates": 2}
EVERY: dict[str, Any] = {"checkpoint": {"every": 1}, "optimizer": TWICE, "method": {"name": "direct_sd", "k": 5}}
UNREAD = {"reading_every": 0}
ONE_GROUP: dict[str, Any] = {"groups": 1, "group_size": 3, "limits": {"turns": 1, "tokens": 60}}


def drawn_policy(seed: int) -> Any:
    return make_context_sensitive(model(torch.float64, VOCABULARY, seed))


def accumulator_of(student: Any, surrogate: SurrogateSettings) -> GradientAccumulator:
    size = BatchSize.of(GROUP.rollouts, MAX_TOKENS)
    return GradientAccumulator(model=student, surrogate=surrogate, size=size, config=CONFIG)


def learned_once(student: Any) -> tuple[CreditedGroup, list[TeacherInput]]:
    """The first update's pass, by the trainer's own calls, with a teacher that is imitated."""
    reference = np.array([7, 3, 9], np.int32)
    inputs = [
        TeacherInput(rollout, build_teacher_input_ids(rollout, reference), np.ones(len(rollout.response), bool))
        for rollout in GROUP.rollouts
    ]
    method = build_method(DIRECT_SD)
    assert method.needs is not None
    [teacher] = method.needs.teachers
    topk = score_teacher(student, inputs, k=VOCABULARY, config=CONFIG)
    timer = StepTimer(ModelThread(), lambda _: None)
    accumulator = accumulator_of(student, SurrogateSettings())
    learner = GroupLearner(accumulator=accumulator, method=method, timer=timer, group_advantages=ADVANTAGES)
    scored_group = ScoredGroup(GROUP, inputs, None, {teacher: topk})
    credited = learner.build_credited_group(scored_group, learner.accumulate_group_gradient(scored_group))
    student.zero_grad()
    return credited, inputs


def log_distribution(net: Any, ids: Any, rollout: Rollout) -> Tensor:
    logits = net(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0] / CONFIG.temperature
    places = logits[len(ids) - len(rollout.response) - 1 : -1]
    return places[torch.from_numpy(rollout.response_mask)].log_softmax(-1)


def sampled(distribution: Tensor, rollout: Rollout) -> Tensor:
    ids = torch.from_numpy(rollout.response[rollout.response_mask].astype(np.int64))
    return distribution.gather(-1, ids[:, None])[:, 0]


@pytest.mark.parametrize(
    "surrogate",
    [
        SurrogateSettings(clip=0.05),
        SurrogateSettings(preset="gspo", clip=0.02, clip_high=0.02),
        SurrogateSettings(trust_region="dppo_tv", clip=0.01, average="constant"),
        SurrogateSettings(trust_region="kl_cov", covariance=CovarianceSettings(share=0.3)),
    ],
    ids=lambda each: f"{each.ratio}-{each.trust_region}",
)
def test_a_second_update_is_the_gradient_of_the_loss_where_the_policy_then_is(surrogate: SurrogateSettings) -> None:
    """Advantages, old log-probabilities and the imitated teacher are those of the first; the rest is new."""
    first, then = drawn_policy(3), drawn_policy(3)
    credited, inputs = learned_once(first)
    with torch.no_grad():
        for weight in then.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    accumulator = accumulator_of(then, surrogate)
    accumulate_further_update(accumulator, [credited], seed=0)
    found = [weight.grad.clone() for weight in then.parameters()]
    then.zero_grad()
    now, before, imitations = list[Tensor](), list[Tensor](), list[Tensor]()
    for teacher_input in inputs:
        rollout = teacher_input.rollout
        ids = np.concatenate([rollout.prompt, rollout.response])
        p = log_distribution(then, ids, rollout)
        with torch.no_grad():
            q = log_distribution(first, teacher_input.input_ids, rollout)
            before.append(sampled(log_distribution(first, ids, rollout), rollout))
        now.append(sampled(p, rollout))
        imitations.append((p.exp() * (p - q)).sum(-1))
    lengths = [len(part) for part in now]
    advantage = torch.tensor(np.repeat(ADVANTAGES, lengths))
    drawn = torch.cat(now).detach()
    covariance = (advantage - advantage.mean()) * (drawn - drawn.mean())
    chosen = torch.zeros(sum(lengths), dtype=torch.bool)
    chosen[covariance.argsort(descending=True)[: int(0.3 * sum(lengths))]] = True
    tokens = tokens_of(torch.cat(now), torch.cat(before), advantage, lengths, chosen=chosen)
    loss = published_loss(tokens, surrogate, MAX_TOKENS)
    per_rollout = torch.stack(
        [(part.mean() if surrogate.average == "sequence_mean" else part.sum()) for part in imitations]
    )
    loss = loss + 0.3 * per_rollout.sum() / accumulator.size.denominator(surrogate.average)
    loss.backward()
    if surrogate.trust_region in ("clip", "dppo_tv"):
        assert 0 < accumulator.clipped_sum < sum(lengths)
    for got, weight in zip(found, then.parameters(), strict=True):
        assert (got - weight.grad).abs().max() <= 1e-5 * weight.grad.abs().max()


def test_in_a_step_teachers_score_once_and_the_policy_moves_as_often_as_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def counted(*given: Any, **named: Any) -> Any:
        passes.append(1)
        return score_teacher(*given, **named)

    monkeypatch.setattr(teacher_scorer, "score_teacher", counted)
    watcher = Watcher()
    train(tmp_path / "run", watcher, steps=1, siblings=ONE_GROUP, scoring=UNREAD, optimizer={**TWICE, "updates": 3})
    [row] = watcher.rows
    assert len(passes) == row.kept > 0
    assert (row.updates, row.in_graph) == (3, 0)
    assert 0 < row.clip_share < 2 / 3  # the first of the three clips nothing
    assert row.ratio != 1


COVARIANCE = {"share": 0.1, "low": -9.0, "high": 9.0}
SURROGATES: list[dict[str, Any]] = [
    {"ratio": "none"},
    {"trust_region": "dppo_tv", "clip": 0.02},
    {"trust_region": "dppo_kl", "clip": 0.01},
    {"trust_region": "clip_cov", "covariance": COVARIANCE},
    {"trust_region": "kl_cov", "covariance": COVARIANCE},
    {"kl": 0.1, "kl_estimate": "k1"},
    {"kl": 0.1, "kl_estimate": "k2"},
    *({"preset": name} for name in PRESETS),
]


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def plain_policy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """After the same updates with the defaults."""
    path = tmp_path_factory.mktemp("runs") / "plain"
    train(path, steps=3, **EVERY)
    return policy(path)


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda each: "-".join(map(str, each.values()))[:20])
def test_every_surrogate_trains_and_a_run_killed_in_a_later_update_ends_the_same(
    tmp_path: Path, surrogate: dict[str, Any], plain_policy: bytes
) -> None:
    every: dict[str, Any] = {"steps": 3, "surrogate": surrogate, **EVERY}
    watcher = Watcher()
    train(tmp_path / "whole", watcher, **every)
    calls: list[int] = []

    def dies(*given: Any) -> None:
        accumulate_further_update(*given)
        calls.append(1)
        if len(calls) == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "accumulate_further_update", dies)
        with pytest.raises(Killed):
            train(tmp_path / "stopped", **every)
    train(tmp_path / "stopped", **every)
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")
    assert {row.updates for row in watcher.rows if row.kept} == {2}
    assert policy(tmp_path / "whole") != plain_policy


def test_the_numbers_of_a_step_are_the_means_of_its_updates() -> None:
    first = OptimizerMetrics(lr=0.1, updates=1, loss=1.0, grad_norm=2.0, clip_share=0.0, ratio=1.0, entropy=0.5)
    second = OptimizerMetrics(lr=0.1, updates=1, loss=3.0, grad_norm=None, clip_share=0.5, ratio=1.5, entropy=0.7)
    refused = OptimizerMetrics(lr=0.1, updates=0, skipped="the loss was not finite")
    assert mean_over_updates([first]) is first
    joined = mean_over_updates([first, second, refused])
    assert (joined.updates, joined.skipped, joined.loss, joined.grad_norm) == (2, "", 2.0, 2.0)
    assert (joined.clip_share, joined.ratio, joined.kl) == (0.25, 1.25, None)
    assert joined.entropy == pytest.approx(0.6)
    nothing = mean_over_updates([refused, refused])
    assert (nothing.updates, nothing.skipped, nothing.loss) == (0, "the loss was not finite", None)
