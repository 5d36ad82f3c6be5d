"""The surrogate beside TRL's own `compute_loss`, on the same random log-probabilities: loss and gradient."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")
from helpers.published_losses import PaddedRows, drawn_tokens
from sgcd.bench.step import CHAT, build_small_qwen
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import BatchSize, PackedTokens, surrogate_loss

LENGTHS, MAX_TOKENS = [5, 2, 7, 4], 9


@pytest.fixture(scope="module")
def trainer() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
        steps = import_module("trl_steps")
    made = steps.build_trl_trainer(steps.GRPO, build_small_qwen(CHAT.vocab_size), len(LENGTHS))
    made.max_completion_length, made.args.use_bias_correction_kl = MAX_TOKENS, False
    return made


def trl_loss(trainer: Any, tokens: PackedTokens, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> torch.Tensor:
    """TRL's loss, with the tokens as what its model gives."""
    rows = PaddedRows(tokens)
    assert tokens.initial_logprobs is not None
    monkeypatch.setattr(
        trainer,
        "_get_per_token_logps_and_entropies",
        lambda *_, **__: (rows.logprobs, torch.zeros_like(rows.logprobs), None),
    )
    monkeypatch.setattr(trainer.args, "delta", keys.pop("delta", None))
    for name, value in {"epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token", **keys}.items():
        monkeypatch.setattr(trainer, name, value)
    mask = rows.mask.long()
    return trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": torch.ones(len(LENGTHS), 2, dtype=torch.long),
            "prompt_mask": torch.ones(len(LENGTHS), 2, dtype=torch.long),
            "completion_ids": torch.ones_like(mask),
            "completion_mask": mask,
            "advantages": rows.advantage[:, 0],
            "old_per_token_logps": rows.old,
            "ref_per_token_logps": rows.padded(tokens.initial_logprobs),
            "num_items_in_batch": mask.sum(),
        },
    )


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"loss_type": "dapo"}, {}),
    ({"loss_type": "dapo", "epsilon_high": 0.28}, {"clip_high": 0.28}),
    ({"loss_type": "bnpo"}, {}),
    ({"loss_type": "grpo"}, {"preset": "grpo"}),
    ({"loss_type": "grpo", "beta": 0.04}, {"preset": "grpo_kl", "kl": 0.04}),
    ({"loss_type": "dapo", "beta": 0.3}, {"kl": 0.3}),
    ({"loss_type": "dr_grpo"}, {"preset": "dr_grpo"}),
    ({"loss_type": "dapo", "delta": 1.5}, {"dual_clip": 1.5}),
    (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15},
        {"preset": "gspo", "clip": 0.1, "clip_high": 0.15},
    ),
]


@pytest.mark.parametrize(("theirs", "ours"), SAME, ids=lambda keys: "-".join(map(str, keys.values())) or "defaults")
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradient_are_those_of_trl(
    theirs: dict[str, Any], ours: dict[str, Any], seed: int, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = drawn_tokens(LENGTHS, seed)
    settings = SurrogateSettings.model_validate(ours)
    monkeypatch.setattr(trainer, "beta", 0.0)
    size = BatchSize(sum(LENGTHS), len(LENGTHS), MAX_TOKENS)
    found = surrogate_loss(tokens, size, settings)
    expected = trl_loss(trainer, tokens, monkeypatch, **theirs)
    slopes = [torch.autograd.grad(loss, tokens.logprobs)[0] for loss in (found.loss, expected)]
    assert found.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(slopes[0], slopes[1], atol=1e-5)
    assert slopes[0].abs().max() > 0.01
    assert "sequence" in theirs.values() or 0 < found.clipped_sum < sum(LENGTHS)


def test_another_bound_or_another_average_is_another_gradient(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = drawn_tokens(LENGTHS, 0)
    expected = trl_loss(trainer, tokens, monkeypatch, loss_type="dapo", beta=0.0)
    slope = torch.autograd.grad(expected, tokens.logprobs)[0]
    size = BatchSize(sum(LENGTHS), len(LENGTHS), MAX_TOKENS)
    others: list[dict[str, Any]] = [{"clip": 0.9}, {"preset": "grpo"}, {"preset": "dr_grpo"}, {"ratio": "sequence"}]
    for other in others:
        loss = surrogate_loss(tokens, size, SurrogateSettings.model_validate(other)).loss
        assert (torch.autograd.grad(loss, tokens.logprobs)[0] - slope).abs().max() > 1e-3
