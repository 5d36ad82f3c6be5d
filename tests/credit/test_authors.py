"""Methods beside the functions of their authors, called on the same random groups.

`SGCD_AUTHORS` names a folder with clones OWNER+NAME of the repositories in `FUNCTIONS`; without it these tests are left
out. A function is read from its file and run by itself, so nothing of a repository is installed.
"""

import ast
import functools
import math
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.credit_cases import build, build_inputs
from helpers.training_runs import group
from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.pull.gigpo import discounted_returns, turn_states
from sgcd.credit_records import Signal

FUNCTIONS = {
    "compute_rlsd_token_advantage": ("ZJU-REAL+SDAR", "verl/trainer/ppo/rlsd_utils.py"),
    "compute_sdar_loss": ("ZJU-REAL+SDAR", "verl/trainer/ppo/sdar_utils.py"),
    "compute_sdl_loss": ("ZJU-REAL+SDAR", "verl/trainer/ppo/skillsd_utils.py"),
    "step_norm_reward": ("ZJU-REAL+SDAR", "gigpo/core_gigpo.py"),
    "compute_grsd_turn_advantage": ("BinbZheng1+GRSD", "verl/trainer/ppo/grsd_utils.py"),
    "compute_stepwise_opd_weights": ("YoungZ365+SOD", "verl/trainer/ppo/ray_trainer.py"),
    "compute_teacher_token_advantage": ("jinyangwu+OPID", "gigpo/core_gigpo.py"),
    "compute_opsd_turn_advantage": ("ZethWang+AgentOPSD", "verl/trainer/ppo/opsd_utils.py"),
    "_compute_scope_dual_path_weights": ("machine981+SCOPE", "verl/trainer/ppo/ray_trainer.py"),
}
AUTHORS = os.environ.get("SGCD_AUTHORS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AUTHORS, reason="SGCD_AUTHORS names no folder of clones"),
]
TOLERANCE = 1e-5


def mean_over_tokens(loss_mat: Tensor, loss_mask: Tensor, loss_agg_mode: str) -> Tensor:
    assert loss_agg_mode == "token-mean"
    return (loss_mat * loss_mask).sum() / loss_mask.sum()


@functools.cache
def authors_function(name: str) -> Callable[..., Any]:
    """A function from its file, with the functions and constants of that file that it may call."""
    repository, path = FUNCTIONS[name]
    show = ["git", "-C", str(Path(AUTHORS) / repository), "show", f"HEAD:{path}"]
    tree = ast.parse(subprocess.run(show, capture_output=True, text=True, check=True).stdout)
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list, node.returns = [], None
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
            kept.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            kept.append(node)
    names: dict[str, Any] = {
        "torch": torch,
        "np": np,
        "math": math,
        "defaultdict": defaultdict,
        "Optional": Optional,
        "Sequence": Sequence,
        "agg_loss": mean_over_tokens,
    }
    exec(compile(ast.Module(kept, []), path, "exec"), names)
    return names[name]


def random_groups() -> Iterator[list[CreditInputs]]:
    """Forty groups of two to five siblings with one to four turns, of which some succeed, and no masked literal."""
    rng = np.random.default_rng(7)
    for seed in range(40):
        masks = [
            ".".join("x" * rng.integers(1, 9) for _ in range(rng.integers(1, 5))) for _ in range(rng.integers(2, 6))
        ]
        siblings = group(*masks, wins=int(rng.integers(1, len(masks))))
        rollouts = tuple(
            replace(
                each,
                messages=tuple(
                    message
                    for _ in each.turns
                    for message in (
                        {"role": "assistant", "content": "go"},
                        {"role": "tool", "content": str(rng.integers(3))},
                    )
                ),
            )
            for each in siblings.rollouts
        )
        yield [
            replace(each, outside_literals=None) for each in build_inputs(replace(siblings, rollouts=rollouts), seed)
        ]


def signals(name: str, case: list[CreditInputs], **settings: Any) -> list[Signal]:
    method = build(name, **settings)
    if method.needs_whole_step:
        method.observe_step(case)
    return [method.assign_credit(inputs) for inputs in case]


def arrays(inputs: CreditInputs) -> tuple[Tensor, Tensor, Tensor]:
    """The log-probabilities of student and teacher and the mask of a rollout, as a batch of one."""
    features = inputs.reference_features
    assert features is not None and inputs.logprobs is not None
    student = torch.from_numpy(inputs.logprobs.astype(np.float64))
    teacher = student + torch.from_numpy(features.teacher_logprob_gap.astype(np.float64))
    return student[None], teacher[None], torch.from_numpy(inputs.rollout.response_mask.astype(np.float64))[None]


def turn_rows(case: list[CreditInputs]) -> tuple[list[tuple[int, int, int]], Tensor, Tensor, Tensor]:
    """A row for each turn: rollout, first and last token; its log-probabilities, and its mask."""
    places = [(index, turn.start, turn.stop) for index, each in enumerate(case) for turn in each.rollout.turns]
    width = max(stop - start for _, start, stop in places)
    rows = torch.zeros(3, len(places), width, dtype=torch.float64)
    for row, (index, start, stop) in enumerate(places):
        for number, array in enumerate(arrays(case[index])):
            rows[number, row, : stop - start] = array[0, start:stop]
    return places, rows[0], rows[1], rows[2]


def check(found: np.ndarray, expected: Tensor) -> None:
    assert np.abs(found - expected.detach().numpy().reshape(found.shape)).max(initial=0) <= TOLERANCE


def test_rlsd() -> None:
    for case in random_groups():
        for inputs, signal in zip(case, signals("rlsd", case, decay_steps=None), strict=True):
            student, teacher, mask = arrays(inputs)
            expected = authors_function("compute_rlsd_token_advantage")(inputs.advantage * mask, student, teacher, mask)
            check(signal.token_advantage * inputs.rollout.response_mask, expected)


@pytest.mark.parametrize(("name", "function"), [("sdar", "compute_sdar_loss"), ("skill_sd", "compute_sdl_loss")])
def test_a_term_in_the_loss_has_the_gradient_of_its_pull(name: str, function: str) -> None:
    """In the first update: minus the gradient, times the number of tokens that the mean is over."""
    for case in random_groups():
        for inputs, signal in zip(case, signals(name, case, coefficient=0.5), strict=True):
            student, teacher, mask = arrays(inputs)
            student.requires_grad_()
            old = [student.detach()] if name == "skill_sd" else []
            loss = authors_function(function)(student, teacher, *old, mask)
            (loss if isinstance(loss, Tensor) else loss[0]).backward()
            assert signal.pull is not None and student.grad is not None
            check(signal.pull, -0.5 * student.grad * mask.sum())


def test_opid() -> None:
    for case in random_groups():
        for inputs, signal in zip(case, signals("opid", case, coefficient=1.0), strict=True):
            student, teacher, mask = arrays(inputs)
            assert signal.pull is not None
            check(signal.pull, authors_function("compute_teacher_token_advantage")(mask, teacher, student))


def test_sod() -> None:
    for case in random_groups():
        for inputs, signal in zip(case, signals("sod", case), strict=True):
            student, teacher, mask = arrays(inputs)
            weight, _ = authors_function("compute_stepwise_opd_weights")(student, teacher, mask, delta=0.2)
            assert signal.pull is not None
            check(signal.pull, weight * (teacher - student) * mask)


def test_grsd() -> None:
    for case in random_groups():
        places, student, teacher, mask = turn_rows(case)
        advantage = torch.tensor([case[index].advantage for index, _, _ in places], dtype=torch.float64)
        rows = [index for index, _, _ in places]
        ones, zeros = np.ones(len(places)), np.zeros(len(places), np.int64)
        expected, _ = authors_function("compute_grsd_turn_advantage")(
            advantage[:, None] * mask, student, teacher, mask, np.array(rows), ones, zeros, g_hat_max=0.2
        )
        found = signals("grsd", case)
        for row, (index, start, stop) in enumerate(places):
            check(found[index].token_advantage[start:stop], expected[row, : stop - start])


def test_agent_opsd() -> None:
    for case in random_groups():
        places, student, teacher, mask = turn_rows(case)
        advantage = torch.tensor([case[index].advantage for index, _, _ in places], dtype=torch.float64)
        rows = np.array([index for index, _, _ in places])
        steps = np.arange(len(places))
        expected = authors_function("compute_opsd_turn_advantage")(
            torch.zeros_like(mask), student, teacher, mask, rows, steps,
            seq_advantage_per_row=advantage, belief_mult=True, mult_lambda=0.5, signed=True,
        )  # fmt: skip
        found = signals("agent_opsd", case)
        for row, (index, start, stop) in enumerate(places):
            check(found[index].token_advantage[start:stop], expected[row, : stop - start])


@pytest.mark.parametrize("scale_by_std", [False, True])
def test_gigpo(scale_by_std: bool) -> None:
    for case in random_groups():
        states = [state for each in case for state in turn_states(each.rollout)]
        returns = [
            value for each in case for value in discounted_returns(len(each.rollout.turns), each.rollout.reward, 0.95)
        ]
        places, _, _, mask = turn_rows(case)
        values = torch.tensor(returns, dtype=torch.float32)
        alone = torch.tensor([states.count(state) == 1 for state in states])
        expected = authors_function("step_norm_reward")(values, mask, np.array(states), remove_std=not scale_by_std)
        expected = expected.masked_fill(alone[:, None], 0)  # theirs leaves a state that was seen once its return
        found = signals("gigpo", case, scale_by_std=scale_by_std)
        for row, (index, start, stop) in enumerate(places):
            pull = found[index].pull
            assert pull is not None
            check(pull[start:stop], expected[row, : stop - start])


def test_scope_weighs_each_path() -> None:
    """With their flag for successes as the paper has it; their script sets it the other way round."""
    for case in random_groups():
        batch = [arrays(inputs) for inputs in case]
        width = max(mask.shape[1] for _, _, mask in batch)
        padded = [
            torch.cat([torch.nn.functional.pad(row[n], (0, width - row[n].shape[1])) for row in batch])
            for n in (0, 1, 2)
        ]
        rewards = torch.zeros_like(padded[2])
        rewards[:, 0] = torch.tensor([inputs.rollout.reward for inputs in case])
        names = ("old_log_probs", "teacher_log_probs", "response_mask")
        data = SimpleNamespace(batch={**dict(zip(names, padded, strict=True)), "token_level_scores": rewards})
        successes, failures = authors_function("_compute_scope_dual_path_weights")(
            data,
            np.zeros(len(case), np.int64),
            tau=2.0,
            teacher_path_ppl_positive=True,
            student_path_ppl_positive=False,
        )
        for row, signal in enumerate(signals("scope", case, temperature=2.0)):
            paths = [signal.pull, signal.imitate and signal.imitate.weight]
            found = [0.0 if path is None else path.max() for path in paths]
            check(np.array(found), torch.stack([successes[row], failures[row]]))
