"""Pull, imitation, teachers and the permuted control: what a method may ask for besides credit, by plain torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.tiny_policy import Watcher, make_context_sensitive, model, recipe
from helpers.training_runs import LONG, group, train
from sgcd.assemble import assemble
from sgcd.contrast.insert import build_teacher_input_ids
from sgcd.credit.methods import CreditInputs, Method, StatelessMethod, build_method
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.signal_settings import DirectSdSettings, OpdSettings, OpsdSettings, SdarSettings, SdpoSettings
from sgcd.credit_records import OWN_REFERENCE, Credit, Features, Imitation, Signal
from sgcd.errors import RecordError
from sgcd.learn.policy.teacher_policies import InitialPolicy
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.teacher import score_at_topk, score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput, with_student_prompt
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training import teacher_scorer
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.step import GroupLearner, compute_advantages
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.teacher_scorer import NEXT_REFERENCE, ScoredGroup
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.recipe.load import load_recipe
from sgcd.records import Rollout
from sgcd.storage.run_folder import RunFolder
from sgcd.study.memory_check import check_memory

ROOT = Path(__file__).resolve().parents[2]
GROUP = group("xx..xxx", "xxxx", "....xx", "xxx.x.x.x", "", wins=2)
REFERENCE = np.array([7, 3, 9, 9], np.int32)
TEMPERATURE = 0.7
CONFIG = ForwardConfig(TEMPERATURE, 24)
ADVANTAGES = [1.0, 1.5, -0.5, -1.25, -0.75]
NUM_TOKENS = sum(rollout.num_policy_tokens for rollout in GROUP.rollouts)


def policy(seed: int = 3) -> Any:
    return make_context_sensitive(model(torch.float64, 50, seed))


def with_reference() -> list[TeacherInput]:
    return [
        TeacherInput(rollout, build_teacher_input_ids(rollout, REFERENCE), np.ones(len(rollout.response), bool))
        for rollout in GROUP.rollouts
    ]


def learned(student: Any, teacher: Any, method: Method, inputs: list[TeacherInput]) -> dict[str, Tensor]:
    """The gradient of a group by the trainer's own calls."""
    assert method.needs is not None
    return learned_from(student, method, inputs, score_teacher(teacher, inputs, k=method.needs.k, config=CONFIG))


def learned_from(student: Any, method: Method, inputs: list[TeacherInput], topk: Any) -> dict[str, Tensor]:
    """The gradient of a group whose only teacher has scored."""
    assert method.needs is not None
    [wanted] = method.needs.teachers
    accumulator = GradientAccumulator(
        model=student, surrogate=SurrogateSettings(), size=BatchSize.of(GROUP.rollouts), config=CONFIG
    )
    timer = StepTimer(ModelThread(), lambda _: None)
    learner = GroupLearner(accumulator=accumulator, method=method, timer=timer, group_advantages=ADVANTAGES)
    learner.accumulate_group_gradient(ScoredGroup(GROUP, inputs, None, {wanted: topk}))
    return {name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None}


def logits(net: Any, ids: Any, rollout: Rollout) -> Tensor:
    """At the places from which the rollout's own tokens are predicted, in float64 and in full."""
    whole = net(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
    return whole[len(ids) - len(rollout.response) - 1 : -1][torch.from_numpy(rollout.response_mask)] / TEMPERATURE


def both(student: Any, teacher: Any, teacher_input: TeacherInput) -> tuple[Tensor, Tensor, Tensor]:
    rollout = teacher_input.rollout
    p = logits(student, np.concatenate([rollout.prompt, rollout.response]), rollout).log_softmax(-1)
    with torch.no_grad():
        q = logits(teacher, teacher_input.input_ids, rollout).log_softmax(-1)
    return p, q, torch.from_numpy(rollout.response[rollout.response_mask].astype(np.int64))


def plain(student: Any, losses: Sequence[Tensor]) -> dict[str, Tensor]:
    student.zero_grad()
    (torch.stack(list(losses)).sum() / NUM_TOKENS).backward()
    return {name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = expected[name].abs().max()
        assert scale > 0
        assert (gradient - expected[name]).abs().max() <= 1e-6 * scale, name


@pytest.mark.parametrize("context", ["reference", "none"])
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_on_policy_distillation_is_its_policy_gradient(context: Any, reward: float) -> None:
    """-(reward A + coefficient (log q(y) - log p(y)).detach()) log p(y), by autograd over whole distributions."""
    student, teacher = policy(), policy(seed=4)
    settings = OpdSettings(
        name="opd", k=5, context=context, teacher="initial", coefficient=0.5, reward_coefficient=reward
    )
    inputs = with_reference() if context == "reference" else with_student_prompt(GROUP.rollouts)
    found = {name: g.clone() for name, g in learned(student, teacher, build_method(settings), inputs).items()}
    losses = []
    for advantage, teacher_input in zip(ADVANTAGES, inputs, strict=True):
        p, q, y = both(student, teacher, teacher_input)
        own, theirs = (x.gather(-1, y[:, None])[:, 0] for x in (p, q))
        losses.append(-((reward * advantage + 0.5 * (theirs - own).detach()) * own).sum())
    assert_same(found, plain(student, losses))


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "jsd"])
@pytest.mark.parametrize("k", [1, 6, 50])
def test_direct_self_distillation_is_grpo_and_a_divergence_in_the_loss(kind: Any, k: int) -> None:
    """GRPO and coefficient * D over the teacher's top k, the sampled token and the tail, by autograd in full."""
    student, teacher = policy(), policy(seed=4)
    settings = DirectSdSettings(name="direct_sd", k=k, divergence=kind, coefficient=0.3)
    inputs = with_reference()
    found = {name: g.clone() for name, g in learned(student, teacher, build_method(settings), inputs).items()}
    losses = []
    for advantage, teacher_input in zip(ADVANTAGES, inputs, strict=True):
        p, q, y = both(student, teacher, teacher_input)
        own = p.gather(-1, y[:, None])[:, 0]
        support = torch.zeros_like(q, dtype=torch.bool).scatter(1, q.topk(k).indices, True).scatter(1, y[:, None], True)
        losses.append(-(advantage * own).sum() + 0.3 * merged_divergence(p, q, support, kind))
    assert_same(found, plain(student, losses))


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_opsd_is_a_divergence_in_the_loss_and_no_reward(reward: float) -> None:
    """2 JSD over the teacher's top 6, the sampled token and the tail, by autograd in full."""
    student, teacher, inputs = policy(), policy(seed=4), with_reference()
    settings = OpsdSettings(name="opsd", k=6, coefficient=2.0, reward_coefficient=reward)
    found = {name: g.clone() for name, g in learned(student, teacher, build_method(settings), inputs).items()}
    losses = []
    for advantage, teacher_input in zip(ADVANTAGES, inputs, strict=True):
        p, q, y = both(student, teacher, teacher_input)
        own = p.gather(-1, y[:, None])[:, 0]
        support = torch.zeros_like(q, dtype=torch.bool).scatter(1, q.topk(6).indices, True).scatter(1, y[:, None], True)
        losses.append(-(reward * advantage * own).sum() + 2.0 * merged_divergence(p, q, support, "jsd"))
    assert_same(found, plain(student, losses))


@pytest.mark.parametrize("support", ["student", "teacher"])
def test_sdpo_is_a_divergence_over_the_top_tokens_of_the_student(support: Any) -> None:
    """JSD over the top 6, the sampled token and the tail, by autograd in full; no reward."""
    student, average, inputs = policy(), policy(seed=4), with_reference()
    method = build_method(SdpoSettings(name="sdpo", k=6, coefficient=2.0, support=support))
    assert method.needs is not None
    own = score_teacher(student, with_student_prompt(GROUP.rollouts), k=6, config=CONFIG)
    topk = {
        "student": lambda: score_at_topk(average, own, inputs, config=CONFIG),
        "teacher": lambda: score_teacher(average, inputs, k=6, config=CONFIG),
    }[support]()
    found = {name: g.clone() for name, g in learned_from(student, method, inputs, topk).items()}
    losses = []
    for teacher_input in inputs:
        p, q, y = both(student, average, teacher_input)
        top = (p if support == "student" else q).topk(6).indices
        kept = torch.zeros_like(q, dtype=torch.bool).scatter(1, top, True).scatter(1, y[:, None], True)
        losses.append(2.0 * merged_divergence(p, q, kept, "jsd"))
    assert_same(found, plain(student, losses))


def test_sdar_has_the_gradient_of_its_gated_term_in_the_loss() -> None:
    """GRPO and 0.3 * gate (log q(y) - log p(y)), with gate and teacher detached, by autograd."""
    student, teacher, inputs = policy(), policy(seed=4), with_reference()
    settings = SdarSettings(name="sdar", coefficient=0.3, sharpness=2.0)
    found = {name: g.clone() for name, g in learned(student, teacher, build_method(settings), inputs).items()}
    losses = []
    for advantage, teacher_input in zip(ADVANTAGES, inputs, strict=True):
        p, q, y = both(student, teacher, teacher_input)
        own, theirs = (x.gather(-1, y[:, None])[:, 0] for x in (p, q))
        gate = torch.sigmoid(2.0 * (theirs - own)).detach()
        losses.append((0.3 * gate * (theirs - own) - advantage * own).sum())
    assert_same(found, plain(student, losses))


def merged_divergence(p: Tensor, q: Tensor, support: Tensor, kind: str) -> Tensor:
    """Summed over tokens; all ids outside the support are one outcome."""

    def merged(x: Tensor) -> Tensor:
        tail = (x.exp() * ~support).sum(-1, keepdim=True)
        return torch.cat([x.exp() * support, tail], -1)

    def kl(a: Tensor, b: Tensor) -> Tensor:
        some = a > 1e-300
        return (a[some] * (a[some].log() - b[some].log())).sum()

    a, b = merged(p), merged(q)
    if kind == "reverse_kl":
        return kl(a, b)
    return kl(b, a) if kind == "forward_kl" else (kl(a, (a + b) / 2) + kl(b, (a + b) / 2)) / 2


@pytest.mark.parametrize(
    "method", [{"name": "opd", "k": 5, "coefficient": 0}, {"name": "direct_sd", "k": 5, "coefficient": 0}]
)
def test_a_coefficient_of_zero_is_grpo_to_the_byte(tmp_path: Path, method: dict[str, Any]) -> None:
    train(tmp_path / "zero", method=method)
    train(tmp_path / "grpo", method={"name": "grpo"})
    weights = [(tmp_path / name / "policy/model.safetensors").read_bytes() for name in ("zero", "grpo")]
    assert weights[0] == weights[1]


OPD: dict[str, Any] = {"name": "opd", "k": 5, "teacher": "initial", "context": "none"}


@pytest.mark.slow
@pytest.mark.parametrize("method", [OPD, {"name": "opd", "k": 5}, {"name": "direct_sd", "k": 5}])
def test_a_run_trains_is_stopped_and_ends_the_same(tmp_path: Path, method: dict[str, Any]) -> None:
    every: dict[str, Any] = {"method": method, "checkpoint": {"every": 1}}
    watcher = Watcher()
    train(tmp_path / "whole", watcher, steps=3, **every)
    assert any(row.loss is not None for row in watcher.rows)
    train(tmp_path / "stopped", steps=2, **every)
    train(tmp_path / "stopped", steps=3, **every)
    weights = [(tmp_path / name / "policy/model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]
    if method == OPD:
        assert not list((tmp_path / "whole").glob("references/*"))  # its teacher reads none, so none is written
        assert all(row.credit and row.credit.scored == row.credit.rollouts for row in watcher.rows if row.kept)


class ReadsStudent(StatelessMethod):
    """Keeps what it is given, and asks for nothing."""

    needs = None

    def __init__(self) -> None:
        self.seen: list[CreditInputs] = []

    def assign_credit(self, inputs: CreditInputs) -> Any:
        self.seen.append(inputs)
        return Grpo().assign_credit(inputs)


def test_a_method_without_a_teacher_is_given_the_student_s_own_numbers() -> None:
    student, method = policy(), ReadsStudent()
    accumulator = GradientAccumulator(
        model=student, surrogate=SurrogateSettings(), size=BatchSize.of(GROUP.rollouts), config=CONFIG
    )
    timer = StepTimer(ModelThread(), lambda _: None)
    learner = GroupLearner(accumulator=accumulator, method=method, timer=timer, group_advantages=ADVANTAGES, step=4)
    learner.accumulate_group_gradient(ScoredGroup(GROUP, with_student_prompt(GROUP.rollouts), None, {}))
    assert len(method.seen) == len(GROUP.rollouts)
    for inputs in method.seen:
        rollout, mask = inputs.rollout, inputs.rollout.response_mask
        assert (inputs.step, inputs.group_advantages) == (4, ADVANTAGES)
        assert inputs.logprobs is not None and inputs.entropy is not None
        assert not inputs.logprobs[~mask].any() and not inputs.entropy[~mask].any()
        if mask.any():
            p = logits(student, np.concatenate([rollout.prompt, rollout.response]), rollout).log_softmax(-1).detach()
            y = torch.from_numpy(rollout.response[mask].astype(np.int64))
            assert np.allclose(inputs.logprobs[mask], p.gather(-1, y[:, None])[:, 0], rtol=1e-5)
            assert np.allclose(inputs.entropy[mask], -(p.exp() * p).sum(-1), rtol=1e-5)


class AsksForBoth(StatelessMethod):
    """Asks for the teacher that the trainer itself reads every so often."""

    def __init__(self, honest: Method) -> None:
        assert honest.needs is not None
        self.honest = honest
        self.needs = replace(honest.needs, teachers=(OWN_REFERENCE, NEXT_REFERENCE, OWN_REFERENCE))

    def assign_credit(self, inputs: CreditInputs) -> Any:
        return self.honest.assign_credit(inputs)


def test_a_teacher_is_scored_once_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def counted(*given: Any, **named: Any) -> Any:
        passes.append(1)
        return score_teacher(*given, **named)

    monkeypatch.setattr(teacher_scorer, "score_teacher", counted)
    watcher = Watcher()

    def prepare(alive: Any) -> None:
        object.__setattr__(alive, "method", AsksForBoth(alive.method))

    train(tmp_path / "run", watcher, prepare, steps=1, scoring={"reading_every": 1})
    assert len(passes) == 3 * watcher.rows[0].kept > 0  # own, next and swapped


def test_advantages_are_dealt_anew_among_siblings_by_seed() -> None:
    siblings = group(*[LONG] * 6, wins=2)
    honest = compute_advantages(siblings, recipe(), 1)
    dealt = [compute_advantages(siblings, recipe(control="permuted", seed=seed), 1) for seed in range(40)]
    assert all(sorted(values) == sorted(honest) for values in dealt)
    assert compute_advantages(siblings, recipe(control="permuted", seed=7), 1) == dealt[7]
    assert dealt[7] != compute_advantages(siblings, recipe(control="permuted", seed=7), 2) or dealt[8] != dealt[7]
    wins = np.mean([[value > 0 for value in values] for values in dealt], axis=0)
    assert (np.abs(wins - 1 / 3) < 0.3).all()  # no place keeps its verdict


def test_a_permuted_run_records_what_it_learned_from(tmp_path: Path) -> None:
    advantages: dict[str, list[float]] = {}
    for control in ("none", "permuted"):
        train(tmp_path / control, method={"name": "grpo"}, steps=1, control=control)
        records = RunFolder.open(tmp_path / control).read_credit(1)
        advantages[control] = [record.credit.advantage for record in records.values()]
    assert sorted(advantages["none"]) == sorted(advantages["permuted"])
    assert advantages["none"] != advantages["permuted"]


def test_a_signal_is_refused_by_name() -> None:
    credit = Credit(1.0, np.ones(3, np.float32))
    with pytest.raises(RecordError, match="signal: pull must have 3 entries"):
        Signal(credit, pull=np.zeros(2, np.float32))
    with pytest.raises(RecordError, match="pull must be finite"):
        Signal(credit, pull=np.array([0, np.nan, 0], np.float32))
    with pytest.raises(RecordError, match=r"imitate\.weight must have 3 entries"):
        Signal(credit, imitate=Imitation(OWN_REFERENCE, 0.1, np.ones(2, np.float32)))
    with pytest.raises(RecordError, match="weights zero or more"):
        Imitation(OWN_REFERENCE, 0.1, -np.ones(3, np.float32))


def test_masked_literals_are_neither_pulled_nor_imitated() -> None:
    rollout = GROUP.rollouts[1]
    features = Features(*(np.ones(4, np.float32) for _ in range(3)))
    creditable = np.array([True, False, True, True])
    inputs = CreditInputs(rollout, 1.0, {OWN_REFERENCE: features}, creditable)
    pull = build_method(OpdSettings(name="opd")).assign_credit(inputs).pull
    imitate = build_method(DirectSdSettings(name="direct_sd")).assign_credit(inputs).imitate
    assert pull is not None and imitate is not None
    assert pull.tolist() == imitate.weight.tolist() == [1, 0, 1, 1]


def test_the_initial_policy_stays_as_it_was() -> None:
    student = policy()
    initial = InitialPolicy(student)
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    with torch.no_grad():
        for weight in student.parameters():
            weight += 1
    with initial.active() as began:
        assert all(torch.equal(weight, before[name]) for name, weight in began.named_parameters())


@pytest.mark.parametrize(
    ("method", "references", "initial"),
    [
        ("{name: opd, context: none, teacher: initial}", False, True),
        ("{name: sod}", True, False),
        ("{name: opsd}", True, True),
        ("{name: opd}", True, False),
        ("{name: direct_sd}", True, False),
    ],
)
def test_what_a_method_needs_decides_what_a_run_holds(method: str, references: bool, initial: bool) -> None:
    """Neither a writer's endpoint nor a copy of the initial policy is there for a method that reads none."""
    writer = "reference.writer={name: llm, base_url: 'http://127.0.0.1:9/v1', model: m}"
    recipe = load_recipe(ROOT / "recipes/lab/grpo.yaml", [f"method={method}", writer])
    context = assemble(recipe)
    assert (context.writer_endpoint is not None) == references
    needs = context.method.needs
    assert needs is not None
    assert (needs.needs_references, needs.needs_model("initial")) == (references, initial)
    plain = load_recipe(ROOT / "recipes/lab/grpo.yaml")
    weights = [check_memory(each).estimate.weights for each in (recipe, plain)]
    assert (weights[0] == 2 * weights[1]) == initial
    context.model_thread.shutdown()
