"""Real families of models: the teacher over long conversations, and divergences against the whole vocabulary."""

from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import family
from helpers.scoring import student_of, teacher_of
from helpers.tiny_policy import rollout
from sgcd.contrast.insert import build_teacher_input_ids
from sgcd.credit.divergence import divergence_features
from sgcd.credit_records import Features
from sgcd.records import Rollout, TokenIds

TEMPERATURE, SIZE = 0.7, 400
NAMES = ("qwen3", "qwen3.5", "llama", "gemma2", "gemma3")
each_family = pytest.mark.parametrize("name", NAMES)
TOLERANCE = 1e-5
"""Of numbers that leave as float32, from models that have float32 inside."""


def turns(count: int, sibling: int = 0) -> str:
    """As many turns of the policy, of other lengths each, with what it heard between them."""
    draws = np.random.default_rng([count, sibling])
    return "".join("x" * int(draws.integers(1, 7)) + "." * int(draws.integers(1, 5)) for _ in range(count))[:-1]


def conversations() -> list[Rollout]:
    """Three of thirty turns, of other lengths, and one of a single turn beside them."""
    found = [rollout(turns(30, n), sibling=n, prompt=9 + 4 * n, size=SIZE) for n in range(3)]
    return [*found, rollout(turns(1), sibling=3, prompt=5, size=SIZE)]


ROLLOUTS = conversations()
REFERENCES = [np.arange(20, 20 + 5 + 3 * each.sibling, dtype=np.int32) for each in ROLLOUTS]
ROWS = [build_teacher_input_ids(each, reference) for each, reference in zip(ROLLOUTS, REFERENCES, strict=True)]


def logits(model: Any, row: TokenIds, response: int) -> torch.Tensor:
    """One row alone, nothing padded, all of the vocabulary: the logits from which each token of the response came."""
    with torch.no_grad():
        z = model(input_ids=torch.from_numpy(row.astype(np.int64))[None]).logits[0]
    return z[len(row) - response - 1 : -1].double() / TEMPERATURE


def both(model: Any, each: Rollout, reference: TokenIds) -> tuple[torch.Tensor, torch.Tensor]:
    """Student and teacher, from the parts of the rollout, joined here and nowhere else."""
    before, behind = each.prompt[: each.reference_position], each.prompt[each.reference_position :]
    return (
        logits(model, np.concatenate([each.prompt, each.response]), len(each.response)),
        logits(model, np.concatenate([before, reference, behind, each.response]), len(each.response)),
    )


def found_by(model: Any, k: int, tokens: int = 400) -> list[Features]:
    lessons = teacher_of(model, ROLLOUTS, ROWS, TEMPERATURE, tokens, k)
    marks = student_of(model, ROLLOUTS, [lessons], TEMPERATURE, tokens, "reverse_kl")
    found = [features for features in marks.features[0] if features]
    assert len(found) == len(ROLLOUTS)
    return found


def test_the_conversations_have_thirty_turns() -> None:
    begun = [int((np.diff(each.response_mask.astype(int), prepend=0) == 1).sum()) for each in ROLLOUTS]
    assert begun == [30, 30, 30, 1]
    assert len({len(each.response) for each in ROLLOUTS}) == 4


@each_family
def test_teacher_and_student_are_aligned_over_thirty_turns(name: str) -> None:
    """Padded beside others of other lengths; by hand each row stands alone. One token off would be far off."""
    model = family(name, SIZE)
    for each, reference, features in zip(ROLLOUTS, REFERENCES, found_by(model, 6), strict=True):
        student, teacher = both(model, each, reference)
        observed = torch.from_numpy(each.response.astype(np.int64))
        for kind, expected in zip(
            ("divergence", "teacher_entropy", "teacher_logprob_gap"),
            divergence_features(student, teacher, observed, k=6),
            strict=True,
        ):
            by_hand = np.where(each.response_mask, expected.numpy(), 0)
            found = getattr(features, kind)
            assert np.abs(found - by_hand).max() < TOLERANCE
            if len(each.response) > 30 and kind != "teacher_entropy":
                assert np.abs(found[1:] - by_hand[:-1]).max() > 100 * TOLERANCE


@each_family
def test_divergences_lie_below_that_of_the_whole_vocabulary_and_rise_with_k(name: str) -> None:
    model = family(name, SIZE)
    whole: list[np.ndarray] = []
    for each, reference in zip(ROLLOUTS, REFERENCES, strict=True):
        p, q = (z.log_softmax(-1)[torch.from_numpy(each.response_mask)] for z in both(model, each, reference))
        whole.append((p.exp() * (p - q)).sum(-1).numpy())
    expected, last = np.concatenate(whole), np.zeros(sum(map(len, whole)))
    assert expected.max() > 0.01
    for k in (1, 6, 50, SIZE):
        d = np.concatenate(
            [f.divergence[each.response_mask] for f, each in zip(found_by(model, k), ROLLOUTS, strict=True)]
        )
        assert (d >= last - TOLERANCE).all()
        assert (d <= expected + TOLERANCE).all()
        last = d
    assert np.abs(last - expected).max() < TOLERANCE
