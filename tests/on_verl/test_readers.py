"""What verl's workers measure is what the local engine measures, from the same logits, without verl."""

from typing import Any

import numpy as np
import torch

from helpers.scoring import student_of, teacher_of
from helpers.tiny_policy import make_context_sensitive, model, rollout
from sgcd.records import Rollout
from sgcd.verl.readers import ROW, StudentReader, TeacherReader, feature_name

MODEL = make_context_sensitive(model())
ROLLOUTS = [rollout("xxxx..xxx"), rollout("x.x", sibling=1), rollout("xxxxx.", sibling=2)]
REFERENCE = np.array([7, 8, 9, 11], np.int32)


def jagged(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def micro_batch(rollouts: list[Rollout], prompts: list[np.ndarray]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A micro-batch as verl packs it, and the logits of its ids: [1, all ids, vocabulary]."""
    rows = [
        torch.from_numpy(np.concatenate([prompt, one.response]).astype(np.int64))
        for prompt, one in zip(prompts, rollouts, strict=True)
    ]
    with torch.no_grad():
        logits = torch.cat([MODEL(input_ids=row[None]).logits[0] for row in rows])[None]
    masks = [torch.from_numpy(one.response_mask.astype(np.int64)) for one in rollouts]
    numbers = torch.arange(len(rows))
    return {"input_ids": jagged(rows), "response_mask": jagged(masks), ROW: numbers}, logits


def read(teacher_prompts: list[np.ndarray], k: int) -> dict[str, list[np.ndarray]]:
    """What a worker returns for each rollout, on the tokens of its response."""
    teacher = TeacherReader(k)
    data, logits = micro_batch(ROLLOUTS, teacher_prompts)
    assert teacher(student_logits=logits, data=data) == {}
    data, logits = micro_batch(ROLLOUTS, [one.prompt for one in ROLLOUTS])
    columns = StudentReader([teacher], "reverse_kl")(student_logits=logits, data=data)
    offsets: Any = data["input_ids"]
    ends = offsets.offsets()[1:].tolist()
    return {
        name: [
            values[0, end - len(one.response) - 1 : end - 1].numpy() for one, end in zip(ROLLOUTS, ends, strict=True)
        ]
        for name, values in columns.items()
    }


def test_divergence_entropy_and_gap_are_those_of_the_local_engine():
    prompts = [np.concatenate([one.prompt[:1], REFERENCE, one.prompt[1:]]) for one in ROLLOUTS]
    measured = read(prompts, k=5)
    rows = [np.concatenate([prompt, one.response]) for prompt, one in zip(prompts, ROLLOUTS, strict=True)]
    topk = teacher_of(MODEL, ROLLOUTS, rows, 1.0, 10_000, 5)
    [features] = student_of(MODEL, ROLLOUTS, [topk], 1.0, 10_000, "reverse_kl").features
    for index, own in enumerate(features):
        assert own is not None and own.divergence.max() > 1e-3
        np.testing.assert_allclose(measured[feature_name("divergence", 0)][index], own.divergence, atol=1e-5)
        np.testing.assert_allclose(measured[feature_name("entropy", 0)][index], own.teacher_entropy, atol=1e-5)
        np.testing.assert_allclose(measured[feature_name("gap", 0)][index], own.teacher_logprob_gap, atol=1e-5)


def test_a_teacher_that_reads_no_reference_differs_by_exactly_nothing():
    measured = read([one.prompt for one in ROLLOUTS], k=5)
    for values in (*measured[feature_name("divergence", 0)], *measured[feature_name("gap", 0)]):
        assert not values.any()


def test_a_reader_in_place_of_a_loss_adds_nothing():
    loss, metrics = TeacherReader(3)(data={}, model_output={}, dp_group=None)
    assert float(loss) == 0.0 and metrics == {}
