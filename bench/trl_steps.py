"""A step of TRL's trainers on our recorded rollouts: the same ids, masks, advantages, model and optimiser.

TRL's own compute_loss is called with what its trainers hold after they have sampled: prompts on the left, completions
on the right, an advantage for each rollout. With one update a batch they keep no old log-probabilities, so neither do
we give any. `bench/peers.py` times these steps, `tests/peers` holds their gradients against ours.
"""

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sgcd.bench.step import CHAT, K, planned, played_groups, rows_of
from sgcd.credit.advantage import advantages
from sgcd.learn.batch import grid
from sgcd.learn.update import optimizer_of

GRPO, COMPLETION, SDPO = "TRL's GRPO", "TRL's GRPO, head over the completion", "TRL's SDPO, top-K"

Batch = dict[str, Any]


def recorded(groups: int, siblings: int, turns: int) -> Batch:
    """The rollouts that our step learns from, as TRL's trainers hold them. All are of one length: nothing is padded."""
    played = played_groups(groups, siblings, turns)
    rollouts = [rollout for group in played for rollout in group.rollouts]
    prompt, response, written = (
        torch.from_numpy(np.stack(arrays).astype(np.int64))
        for arrays in zip(*((each.prompt, each.response, each.mask) for each in rollouts), strict=True)
    )
    better = np.concatenate([advantages([each.reward for each in group.rollouts]) for group in played])
    rows = rows_of(played)
    if len(rows) != len(rollouts) or len({len(row.prompt) for row in rows}) != 1:
        raise ValueError("every rollout must have a reference, and all teacher's prompts one length")
    taught = grid(rows).ids
    return {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": response,
        "completion_mask": torch.ones_like(response),
        "tool_mask": written,
        "advantages": torch.from_numpy(better).float(),
        "num_items_in_batch": written.sum(),
        "teacher_input_ids": taught,
        "teacher_attention_mask": torch.ones_like(taught),
        "self_distillation_mask": torch.ones(len(rollouts)),
    }


def trainer_of(arm: str, model: Any, siblings: int) -> Any:
    """One of TRL's trainers around a model, float32 on the CPU, nothing computed twice to save memory."""
    trl: Any = import_module("trl")
    told: dict[str, Any] = {"report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    told |= {"per_device_train_batch_size": siblings, "num_generations": siblings, "temperature": 1.0}
    with TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told["output_dir"] = place
        given: dict[str, Any] = {"model": model, "reward_funcs": nothing, "processing_class": tokenizer(Path(place))}
        given["train_dataset"] = import_module("datasets").Dataset.from_list([{"prompt": "hello"}] * siblings)
        if arm == SDPO:
            sdpo: Any = import_module("trl.experimental.sdpo")
            how: dict[str, Any] = {
                "distillation_mode": "topk_logits",
                "distillation_topk": K,
                "distillation_alpha": 1.0,
            }
            how |= {"distillation_add_tail": True, "teacher_model_kind": "live"}
            trainer = sdpo.SDPOTrainer(args=sdpo.SDPOConfig(**told, **how), **given)
        else:
            trainer = trl.GRPOTrainer(args=trl.GRPOConfig(**told, loss_type="dapo", beta=0.0), **given)
    trainer.current_gradient_accumulation_steps = 1
    if arm == COMPLETION:
        trainer._get_per_token_logps_and_entropies = over_the_completion(trainer)
    trainer.model.train()
    return trainer


def over_the_completion(trainer: Any) -> Callable[..., Any]:
    """Log-probabilities and entropies from the completion's logits, by TRL's own function for that.

    Without Triton its fused head makes logits of the prompt as well, tile by tile, once forward and once backward.
    On a CPU this is the faster way, so that we are not compared with the slower one alone.
    """
    said: Any = import_module("trl.trainer.utils").selective_log_softmax_and_entropy

    def found(model: Any, ids: Any, mask: Any, kept: int, **_: Any) -> tuple[Any, Any, None]:
        asked = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": kept + 1, "use_cache": False}
        logits = model(**asked).logits[:, :-1]
        return *said(logits, ids[:, -kept:], entropy_requires_grad=False, temperature=trainer.temperature), None

    return found


def step_of(trainer: Any, batch: Batch) -> Callable[[], None]:
    """Loss, gradient, clipping and the same AdamW as ours."""
    settings = planned().optimizer
    model = trainer.model
    optimizer = optimizer_of(model, settings)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        trainer.compute_loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm, foreach=False)
        optimizer.step()

    return step


def nothing(completions: Any, **_: Any) -> list[float]:
    """A reward that nobody asks for."""
    return [0.0] * len(completions)


def tokenizer(place: Path) -> Any:
    from transformers import AutoTokenizer

    CHAT.save(place)
    found: Any = AutoTokenizer.from_pretrained(place)
    return found
