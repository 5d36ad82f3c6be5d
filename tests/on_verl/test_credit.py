"""What verl's driver makes of the workers' numbers; verl itself is not needed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny_policy import rollout
from sgcd.credit.gap_settings import RlsdSettings
from sgcd.credit.methods import build_method
from sgcd.credit.settings import SgcdSettings
from sgcd.credit_records import OWN_REFERENCE, Features
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.learn.training.teacher_scorer import ScoredGroup
from sgcd.records import Group, Task
from sgcd.verl.credit import (
    PreparedGroup,
    RowScores,
    build_prompt_fields,
    credit_groups,
    read_row_scores,
    teacher_prompts,
)
from sgcd.verl.readers import feature_name

ROLLOUTS = (rollout("xxxx..xxx"), rollout("x.x", sibling=1))
SEGMENTS = {"min_tokens": 1, "entropy_quantile": 1.0, "quiet_tokens": 1}


def prepared(with_reference: tuple[bool, bool]) -> PreparedGroup:
    inputs = [
        TeacherInput(
            one, np.concatenate([[9], one.prompt, one.response]) if has else None, np.ones(len(one.response), bool)
        )
        for one, has in zip(ROLLOUTS, with_reference, strict=True)
    ]
    return PreparedGroup(ScoredGroup(Group(Task("t", "action", {}), ROLLOUTS), inputs), {OWN_REFERENCE: inputs})


def scores(seed: int) -> dict[tuple[str, int], RowScores]:
    draws = np.random.default_rng(seed)

    def numbers(size: int) -> np.ndarray:
        return draws.exponential(size=size).astype(np.float32)

    sizes = [len(one.response) for one in ROLLOUTS]
    return {
        ("t", index): RowScores(-numbers(n), numbers(n), [Features(numbers(n), numbers(n), numbers(n), numbers(n))])
        for index, n in enumerate(sizes)
    }


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(-3, 3, width=32))
def test_with_gamma_zero_every_token_has_verls_advantage_to_the_last_bit(seed: int, advantage: float) -> None:
    method = build_method(SgcdSettings.model_validate({"name": "sgcd", "gamma": 0.0, "segments": SEGMENTS}))
    advantages = {("t", 0): advantage, ("t", 1): -advantage}
    credited = credit_groups(method, [prepared((True, True))], scores=scores(seed), advantages=advantages, step=1)
    for entry in credited:
        expected = np.float32(advantages["t", entry.rollout.sibling])
        written = entry.rollout.response_mask
        assert (entry.signal.token_advantage[written] == expected).all()


def test_a_rollout_without_a_reference_has_weights_of_one_whatever_its_row_measured():
    method = build_method(RlsdSettings(name="rlsd"))
    advantages = {("t", 0): 1.0, ("t", 1): -1.0}
    first, second = credit_groups(method, [prepared((True, False))], scores=scores(3), advantages=advantages, step=1)
    assert (first.credit.weight != 1).any() and first.features is not None
    assert (second.credit.weight == 1).all() and second.features is None


def test_rows_without_a_teacher_are_read_after_their_own_prompt():
    prompts = teacher_prompts([prepared((True, False))], [OWN_REFERENCE])
    np.testing.assert_array_equal(prompts["t", 0][0], [9, *ROLLOUTS[0].prompt])
    assert prompts["t", 1] == [None]
    own = torch.nested.as_nested_tensor(
        [torch.from_numpy(one.prompt.astype(np.int64)) for one in ROLLOUTS] + [torch.tensor([1, 1])],
        layout=torch.jagged,
    )
    [(name, field)] = build_prompt_fields([prompts["t", 0], prompts["t", 1], None], own, 1).items()
    assert name == "sgcd_teacher_prompt_0"
    assert [row.tolist() for row in field.unbind()] == [
        [9, *ROLLOUTS[0].prompt],
        ROLLOUTS[1].prompt.tolist(),
        [1, 1],
    ]


def test_scores_are_zero_where_the_policy_wrote_nothing():
    mask = torch.nested.as_nested_tensor([torch.tensor([1, 0, 1]), torch.tensor([0])], layout=torch.jagged)
    ones = torch.nested.as_nested_tensor([torch.ones(3), torch.ones(1)], layout=torch.jagged)
    names = ["old_log_probs", "entropy", *(feature_name(kind, 0) for kind in ("divergence", "entropy", "gap"))]
    first, padding = read_row_scores(dict.fromkeys(names, ones), mask, 1)
    assert first.features[0].divergence.tolist() == first.logprobs.tolist() == [1, 0, 1]
    assert padding.entropy.tolist() == [0]
    assert read_row_scores(dict.fromkeys(names, ones), mask, 0)[0].features == []


@pytest.mark.parametrize("method", ["entropy", "parting", "opd", "gigpo"])
def test_methods_of_every_kind_are_credited(method: str) -> None:
    from pydantic import TypeAdapter

    from sgcd.credit.settings import MethodSettings

    rule = build_method(TypeAdapter(MethodSettings).validate_python({"name": method}))
    group = prepared((True, True))
    if rule.needs:
        group.inputs[rule.needs.teachers[0]] = group.inputs[OWN_REFERENCE]
    credited = credit_groups(rule, [group], scores=scores(5), advantages={("t", 0): 1.0, ("t", 1): -1.0}, step=1)
    assert all(np.isfinite(entry.signal.token_advantage).all() for entry in credited)
