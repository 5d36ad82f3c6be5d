"""Noise and signal at the long desk: the arithmetic on planted gradients, and the gradients themselves."""

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from sgcd.cli import main
from sgcd.cli.commands.lab.app import load_desk_world
from sgcd.lab.long_desk import demonstrate, scores
from sgcd.lab.long_desk.location import locate_credit
from sgcd.lab.long_desk.measure import GroupParts, NoiseMeasure, describe_decisions, passes_gate
from sgcd.lab.long_desk.teachers import score_desk_references
from sgcd.lab.long_desk.weightings import weigh_group
from sgcd.lab.long_desk.world import desk_requests, generate_desk_tasks
from sgcd.lab.policy import build_lab_model
from sgcd.lab.settings import LongDeskSettings
from sgcd.records import Group, Rollout, Turn, Verdict

WORLD = LongDeskSettings(name="long_desk", requests=2, thinking=16)


def planted(ratio: float) -> tuple[NoiseMeasure, GroupParts]:
    """Decisions that agree, and others of `ratio` times their variance that come in pairs of opposite signs."""
    decisions = np.tile(np.array([1.0, 0, 0], np.float32), (8, 1))
    others = np.zeros((8, 3), np.float32)
    others[:, 0] = np.sqrt(ratio) * np.resize([1, -1], 8)
    return NoiseMeasure(np.eye(3, dtype=np.float32)[:2], np.array([2.0, 0, 0], np.float32)), GroupParts(
        decisions, others
    )


@profile(max_examples=20, deadline=None)
@given(st.floats(0.1, 20), st.floats(0, 1), st.floats(0.01, 100))
def test_attenuating_all_other_tokens_gains_what_theory_says(rho: float, weight: float, scale: float) -> None:
    """(1 + rho) / (1 + w^2 rho), whatever the scale; and GRPO gains one over itself."""
    noise, grpo = planted(rho)
    assert noise.rho(grpo).value == pytest.approx(rho, rel=1e-4)
    assert noise.gain(grpo, grpo, False).value == 1 == noise.gain(grpo, grpo, True).value
    weighted = GroupParts(grpo.decisions * np.float32(scale), grpo.others * np.float32(weight * scale))
    expected = (1 + rho) / (1 + weight**2 * rho)
    assert noise.gain(weighted, grpo, False).value == pytest.approx(expected, rel=1e-3)
    assert noise.sigma(grpo).value == pytest.approx(1 / (1 + rho), rel=1e-3)


def test_adam_takes_the_noise_out_of_parameters_that_only_others_have() -> None:
    """Others are loud in a parameter of their own: felt by plain steps, and scaled away by Adam."""
    noise, grpo = planted(0.0)
    others = np.zeros((8, 3), np.float32)
    others[:, 1] = 10 * np.resize([1, -1], 8)
    loud, quiet = GroupParts(grpo.decisions, others), grpo
    assert noise.gain(quiet, loud, False).value == pytest.approx(101)
    assert noise.gain(quiet, loud, True).value == pytest.approx(2)


def test_signal_that_is_noise_has_a_sigma_around_zero() -> None:
    rng = np.random.default_rng(0)
    noise, _ = planted(1.0)
    sigmas = [
        noise.sigma(GroupParts(rng.normal(size=(30, 3)).astype(np.float32), np.zeros((30, 3), np.float32))).value
        for _ in range(200)
    ]
    assert np.mean([value or 0 for value in sigmas]) == pytest.approx(0, abs=0.01)


def test_the_gate_wants_loud_thinking_rare_signal_and_equal_sides() -> None:
    good: dict[str, Any] = {
        "success": 0.3,
        "rho": {"value": 2.5},
        "sigma": {"value": 0.01},
        "prob_right": {"act": 0.7, "refuse": 0.74},
    }
    assert passes_gate(good)
    assert not passes_gate({**good, "success": 0.1})
    assert not passes_gate({**good, "rho": {"value": 1.9}})
    assert not passes_gate({**good, "sigma": {"value": 0.03}})
    assert not passes_gate({**good, "prob_right": {"act": 0.7, "refuse": 0.76}})


@cache
def scored_group() -> tuple[Any, Group, list[scores.DeskRollout]]:
    """Two demonstrations as rollouts of an untrained policy: all right, and wrong at the second request."""
    chat = demonstrate.build_desk_chat()
    model = build_lab_model(0, chat.vocab_size, 1, 12)
    vocabulary, rng = chat.tokenizer.get_vocab(), np.random.default_rng(0)
    task = generate_desk_tasks("dev", WORLD)[0]
    requests = desk_requests(task)
    rollouts: list[Rollout] = []
    for sibling in range(2):
        tools = [requests[0].right_tool, requests[sibling].right_tool]
        turns = [
            demonstrate.write_desk_turn(request, tool, demonstrate.draw_thinking(16, rng))
            for request, tool in zip(requests, tools, strict=True)
        ]
        words = demonstrate.write_demonstration(requests, turns, False)
        ids = np.array([vocabulary[word] for word, _ in words], np.int32)
        rollouts.append(_as_rollout(ids, [len(turn) for turn in turns], vocabulary, task.id, sibling))
    group = Group(task, tuple(rollouts))
    return model, group, scores.score_desk_group(model, chat, task, rollouts)


def _as_rollout(ids: np.ndarray, lengths: list[int], vocabulary: dict[str, int], task: str, sibling: int) -> Rollout:
    openings = np.flatnonzero(ids == vocabulary["<think>"])
    prompt, response = ids[: openings[0]], ids[openings[0] :]
    spans = [(int(at - openings[0]), int(at - openings[0]) + size) for at, size in zip(openings, lengths, strict=True)]
    mask, kinds = np.zeros(len(response), np.bool_), np.zeros(len(response), np.uint8)
    for start, stop in spans:
        mask[start:stop], kinds[start : stop - 6], kinds[stop - 6 : stop] = True, 1, 2
    rewards = [1.0, float(sibling == 1)]
    parts = [{"reward": reward, "turns": 1} for reward in rewards]
    verdict = Verdict(float(all(rewards)), all(rewards), {"parts": parts, "thought": True})
    turn_messages = ({"role": "user", "content": "next"}, {"role": "assistant", "content": "done"})
    messages = tuple(message for _ in spans for message in turn_messages)
    return Rollout(
        task=task, category="action", sibling=sibling, seed=0, prompt=prompt, reference_position=0, response=response,
        response_mask=mask, token_kinds=kinds, sampling_logprobs=np.zeros(len(response), np.float32),
        turns=tuple(Turn(start, stop) for start, stop in spans), messages=messages, tools=(), end_reason="ended",
        verdict=verdict,
    )  # fmt: skip


def test_gradients_of_parts_add_up_and_places_are_tool_names() -> None:
    model, group, scored = scored_group()
    assert [one.is_right.tolist() for one in scored] == [[True, False], [True, True]]
    weighted = weigh_group(group, scored)
    whole = weighted["grpo"]
    parts = [[values * one.is_decision for values, one in zip(whole, scored, strict=True)]]
    parts += [[values * ~one.is_decision for values, one in zip(whole, scored, strict=True)]]
    decisions, others, both = scores.sum_gradients(model, group.rollouts, [*parts, whole])
    np.testing.assert_allclose(decisions + others, both, atol=1e-5)
    of_first, product = scores.decision_gradients(model, scored[0])
    own = [np.where(np.arange(len(values)) == scored[0].places[0], 1, 0).astype(np.float32) for values in whole[:1]]
    np.testing.assert_allclose(of_first[0], scores.sum_gradients(model, [scored[0].rollout], [own])[0], atol=1e-5)
    step = 1e-3 / float(np.linalg.norm(product))
    before, moved = float(scored[0].prob_right.prod()), deepcopy(model)
    with torch.no_grad():
        offset = 0
        for parameter in moved.parameters():
            size = parameter.numel()
            parameter += step * torch.from_numpy(product[offset : offset + size]).view_as(parameter)
            offset += size
    chat = demonstrate.build_desk_chat()
    after = float(scores.score_desk_group(moved, chat, group.task, group.rollouts)[0].prob_right.prod())
    assert after - before == pytest.approx(1e-3 * np.linalg.norm(product), rel=0.05)


def test_weights_that_know_the_truth_are_right() -> None:
    _, group, scored = scored_group()
    weighted = weigh_group(group, scored)
    failed = scored[0]
    grpo, right = weighted["grpo"][0], weighted["right sign [.2, 1]"][0]
    assert (right[failed.places] / grpo[failed.places]).tolist() == pytest.approx([0.2, 1])
    assert weighted["by turn"][0][failed.places[0]] == 0 > weighted["by turn"][0][failed.places[1]]
    thinking = failed.is_thinking
    assert (weighted["thinking mask .2"][0][thinking] / grpo[thinking]).tolist() == pytest.approx(
        [0.2] * thinking.sum()
    )


def test_a_request_without_a_call_counts_as_failed() -> None:
    _, _, scored = scored_group()
    names = ("places", "right_ids", "may_act", "prob_right")
    cut = replace(scored[0], **{name: getattr(scored[0], name)[:1] for name in names})
    whole = describe_decisions([scored[0]] * 2, WORLD)["success_product"]
    assert describe_decisions([scored[0], cut], WORLD)["success_product"] == pytest.approx(whole / 2)


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        (["lab:plain"], "lab measure: lab:plain does not know 'cancel_trip'; expected a policy of the long desk"),
        (["method.name=sgcd"], "lab measure: method.name=sgcd: only keys of the world can be set"),
        (["elsewhere", "environment.name=lab"], "lab measure: environment.name: expected long_desk"),
        (["environment.requests=11"], "environment.requests: expected a whole number, at least 1 and at most 10"),
        (["long-desk-9"], "policy.start: long-desk-9 is not a folder here"),
    ],
)
def test_a_world_or_a_start_that_cannot_be_measured_is_refused(
    typed: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "measure", *typed]) == 2
    assert problem in capsys.readouterr().err


def test_credit_is_located_and_methods_with_a_teacher_are_weighed() -> None:
    """A plain weight finds nothing, the true one all; a teacher is scored under each reference of mixed siblings."""
    model, group, scored = scored_group()
    features = score_desk_references(model, demonstrate.build_desk_chat(), [group])
    assert [sorted(of_group) for of_group in features] == [["own", "shuffled", "swapped"]]
    weighted = weigh_group(group, scored, features[0])
    assert {"sgcd", "sgcd, swapped", "rlsd"} <= {*weighted} and {*weigh_group(group, scored)} < {*weighted}
    found = locate_credit([(group, scored)], [weighted])
    assert found["grpo"]["place"]["value"] == found["grpo"]["sign"]["value"] == 0.5
    assert found["right sign [1, 2]"]["sign"]["value"] == 1
    assert found["right sign [1, 2]"]["place"]["value"] > 0.5
    assert found["thinking mask .2"]["place"]["value"] > 0.8


def test_a_start_is_measured_in_its_own_world() -> None:
    assert [load_desk_world(name, []).thinking for name in ("long-desk-1", "long-desk-short")] == [64, 16]
    assert load_desk_world("long-desk-short", ["environment.thinking=32"]).thinking == 32


@pytest.mark.slow
def test_a_start_is_measured_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["lab", "measure", "long-desk-1", "--tasks", "16", "--held-out", "4"]
    assert main([*typed, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["gains"]["grpo"]["sgd"]["value"] == 1 and measured["rho"]["value"] > 0
    assert measured["thinking"]["entropy"] == pytest.approx(measured["thinking"]["most"], abs=0.02)
    assert main(typed) == 0
    assert "credit can matter here" in capsys.readouterr().out
