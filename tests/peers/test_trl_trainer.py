"""`sgcd.trl.SGCDTrainer` beside TRL's own GRPOTrainer, in TRL's own tool loop."""

import os
import re
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from helpers.trl_runs import build_model, build_tokenizer, build_trainer, weights
from sgcd.cli import main
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.step import GroupLearner
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.trl import SGCDConfig, SGCDTrainer

# TRL warns of `environment_factory` where it is called: here in `sgcd.trl`, whose warnings are errors in tests.
pytestmark = pytest.mark.filterwarnings("ignore:You are using 'environment_factory':UserWarning")
SHORT = {"k": 20, "segments": {"min_tokens": 1, "entropy_quantile": 1.0, "quiet_tokens": 1}}
CREDIT: dict[str, Any] = {"method_kwargs": SHORT}
REFERENCE = (
    "Successful attempts call find, then take.\nAttempts first part at the count of take.\n"
    "Successful attempts copy the count of take from the user's words."
)


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    """The weights after two steps of TRL's own trainer."""
    trainer = build_trainer(tmp_path_factory.mktemp("grpo"), GRPOTrainer, GRPOConfig)
    trainer.train()
    return weights(trainer)


@pytest.mark.parametrize("keys", [{"method": "grpo"}, {"method_kwargs": {**SHORT, "gamma": 0.0}}])
def test_without_credit_it_is_trl_to_the_last_bit(
    tmp_path: Path, plain: list[torch.Tensor], keys: dict[str, Any]
) -> None:
    trainer = build_trainer(tmp_path, SGCDTrainer, SGCDConfig, **keys)
    trainer.train()
    assert same(weights(trainer), plain)


def test_credit_changes_the_step_and_its_weights_are_those_of_the_local_engine(
    tmp_path: Path,
    plain: list[torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = build_trainer(tmp_path, SGCDTrainer, SGCDConfig, method_kwargs=SHORT, log_completions=True)
    largest: list[float] = []
    credit_groups = SGCDTrainer._credit_groups

    def compare(self: SGCDTrainer, model: Any, scored: Any, groups: Any, advantages: Any) -> Any:
        credited = credit_groups(self, model, scored, groups, advantages)
        for start, group in zip(credited, scored, strict=True):
            size = BatchSize(len(group.group.rollouts), 1)
            learner = GroupLearner(
                accumulator=GradientAccumulator(model=model, surrogate=SurrogateSettings(), size=size),
                method=self.credit_method,
                timer=StepTimer(ModelThread(), lambda _: None),
                group_advantages=[entry.credit.advantage for entry in credited[start]],
            )
            own = learner.accumulate_group_gradient(group)
            model.zero_grad()
            for ours, theirs in zip(credited[start], own, strict=True):
                np.testing.assert_allclose(ours.credit.weight, theirs.credit.weight, atol=1e-5)
                largest.append(float(ours.credit.weight.max()))
        return credited

    monkeypatch.setattr(SGCDTrainer, "_credit_groups", compare)
    trainer.train()
    assert max(largest) > 1.2
    assert len(largest) == 2 * 8
    assert not same(weights(trainer), plain)
    rows = trainer.state.log_history[:2]
    assert [row["sgcd/mixed_groups"] for row in rows] == [1.0, 1.0]
    assert all(row["sgcd/mean_weight"] > 1 for row in rows)
    assert set(trainer._logs["extra"]["reference"]) == {REFERENCE}
    import pandas

    tables = tmp_path / "out" / "completions"
    table = pandas.read_parquet(next(tables.glob("*.parquet")))
    assert set(table["reference"]) == {REFERENCE}

    assert main(["report", str(tmp_path / "out")]) == 2
    assert f"sgcd credit {tables} --no-score" in " ".join(capsys.readouterr().err.split())
    assert main(["credit", str(tables), "--no-score", "--out", str(tmp_path / "seen")]) == 0
    assert main(["report", str(tmp_path / "seen"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert REFERENCE.splitlines()[0] in page


@pytest.mark.parametrize("method", ["entropy", "parting", "rlsd", "turn_sgcd", "opd", "gigpo", "grsd"])
def test_every_kind_of_credit_and_pull_trains(tmp_path: Path, plain: list[torch.Tensor], method: str) -> None:
    trainer = build_trainer(tmp_path, SGCDTrainer, SGCDConfig, method=method)
    trainer.train()
    assert all(torch.isfinite(weight).all() for weight in weights(trainer))
    assert not same(weights(trainer), plain)


@pytest.mark.parametrize(("cls", "config", "keys"), [(GRPOTrainer, GRPOConfig, {}), (SGCDTrainer, SGCDConfig, CREDIT)])
def test_a_stopped_run_goes_on_as_exactly_as_trls_own(
    tmp_path: Path, cls: type[GRPOTrainer], config: type[GRPOConfig], keys: dict[str, Any]
) -> None:
    """To rounding: so does TRL's own trainer, whose first weights come from a file."""
    trainers = [build_trainer(tmp_path, cls, config, out=out, **keys) for out in ("whole", "resumed")]
    for trainer in trainers:
        trainer.args.save_strategy, trainer.args.save_steps = "steps", 1
    trainers[0].train()
    trainers[1].train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    whole, resumed = (weights(trainer) for trainer in trainers)
    assert max(float((a - b).abs().max()) for a, b in zip(whole, resumed, strict=True)) < 2e-6


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "sgdc"}, "method: expected one of grpo, sgcd, "),
        ({"method_kwargs": {"gama": 2}}, "method_kwargs: sgcd.gama: "),
        ({"method_kwargs": "{"}, "method_kwargs: expected a dict or a JSON object, got '{'"),
        ({"method": "direct_sd"}, "method: direct_sd imitates a teacher in the loss"),
        ({"method": "opd", "method_kwargs": {"teacher": "initial"}}, "method: the teacher of opd is initial"),
        ({"writer_kwargs": {"name": "llm"}}, "writer_kwargs: "),
        ({"writer_kwargs": {"name": "oracle"}}, "writer_kwargs: oracle is a control of the lab"),
    ],
)
def test_what_it_cannot_execute_is_refused_before_a_model_is_loaded(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message.replace('(', '.').replace('{', '.')}"):
        SGCDConfig(output_dir="out", bf16=False, use_cpu=True, **keys)


def test_arguments_of_trl_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="args: expected an SGCDConfig, got GRPOConfig"):
        build_trainer(tmp_path, SGCDTrainer, GRPOConfig)


def test_a_reward_whose_success_is_not_known_is_refused() -> None:
    config = SGCDConfig(output_dir="out", bf16=False, use_cpu=True)

    def reward(**_: Any) -> list[float]:
        return [1.0]

    assert config.success_threshold(reward) == config.success_threshold([reward]) == 1.0
    assert config.success_threshold(None) == 1.0
    for unknown in ("OWNER/REWARD-MODEL", torch.nn.Linear(1, 1), [reward, reward]):
        with pytest.raises(ValueError, match=r"^success_reward: .* expected the reward from which"):
            config.success_threshold(unknown)
    config.success_reward = 0.7
    assert config.success_threshold([reward, reward]) == 0.7


def test_siblings_in_two_processes_are_compared(tmp_path: Path) -> None:
    """Each of two processes has half of every group: both write the same reference, and weights are the same."""
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2 -m helpers.trl_runs"
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    ended = subprocess.run(
        [sys.executable, *launch.split(), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["references"] == second["references"] == [REFERENCE] * 4
    assert same(first["weights"], second["weights"])
    assert first["mean_weight"] > 1


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a policy that has learned nothing: no completion calls a tool, and no group is mixed."""
    examples = Path(__file__).parents[2] / "examples"
    monkeypatch.syspath_prepend(str(examples / "real"))
    monkeypatch.syspath_prepend(str(examples))
    import_module("make_data").write_data(tmp_path / "data")
    example = import_module("trl_sgcd")
    monkeypatch.setattr(example, "REAL", tmp_path)
    tokenizer = build_tokenizer()
    policy = build_model(tmp_path / "model", tokenizer, 32, 2)
    example.main(policy, steps=1, out=str(tmp_path / "out"))
    assert next((tmp_path / "out" / "completions").glob("*.parquet"))


def test_the_two_names_of_docs_trl_make_a_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/trl.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    trained: list[SGCDTrainer] = []
    monkeypatch.setattr(SGCDTrainer, "train", lambda self: trained.append(self))
    on_cpu = partial(SGCDConfig, use_cpu=True, bf16=False, report_to=[])  # the page says that a CPU needs it
    monkeypatch.setattr("sgcd.trl.SGCDConfig", on_cpu)
    policy = build_model(tmp_path / "model", build_tokenizer(), 32, 2)
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "find"}]}] * 4)
    exec(block, {"policy": policy, "reward": judge_nothing, "rows": rows, "Desk": Bench})
    assert len(trained) == 1


def judge_nothing(environments: list[Any], **_: Any) -> list[float]:
    return [0.0] * len(environments)


class Bench:
    def reset(self, **_: Any) -> None:
        pass

    def look(self, place: str) -> str:
        """Look at a place.

        Args:
            place: where to look
        """
        return place
