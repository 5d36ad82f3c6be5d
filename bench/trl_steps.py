"""A step of TRL's trainers on our recorded rollouts: the same ids, masks, advantages, model and optimiser.

TRL's own compute_loss is called with what its trainers hold after they have sampled: prompts on the left, completions
on the right, an advantage for each rollout. With one update a batch they keep no old log-probabilities, so neither do
we give any. `bench/peers.py` times these steps, `tests/peers` holds their gradients against ours.
"""

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sgcd.bench.step import CHAT, TOP_K, build_bench_recipe, build_random_groups, build_teacher_rollouts
from sgcd.bench.timing import device_name
from sgcd.credit.advantage import advantages
from sgcd.learn.scoring.forward import pad_batch
from sgcd.learn.training.optimizer import build_optimizer
from sgcd.records import Rollout

GRPO, COMPLETION, SDPO = "TRL's GRPO", "TRL's GRPO, head over the completion", "TRL's SDPO, top-K"
SFT = "TRL's SFTTrainer"

TrlBatch = dict[str, Any]


def build_trl_batch(groups: int, siblings: int, turns: int) -> TrlBatch:
    """The rollouts that our step learns from, as TRL's trainers hold them. All are of one length: nothing is padded."""
    groups_played = build_random_groups(groups, siblings, turns)
    rollouts = [rollout for group in groups_played for rollout in group.rollouts]
    prompt, response, tool_mask = (
        torch.from_numpy(np.stack(arrays).astype(np.int64))
        for arrays in zip(*((item.prompt, item.response, item.response_mask) for item in rollouts), strict=True)
    )
    rollout_advantages = np.concatenate(
        [advantages([item.reward for item in group.rollouts]) for group in groups_played]
    )
    teacher_rollouts = build_teacher_rollouts(groups_played)
    if len(teacher_rollouts) != len(rollouts) or len({len(row.prompt) for row in teacher_rollouts}) != 1:
        raise ValueError("every rollout must have a reference, and all teacher's prompts one length")
    teacher_input_ids = pad_batch(teacher_rollouts).input_ids
    return {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": response,
        "completion_mask": torch.ones_like(response),
        "tool_mask": tool_mask,
        "advantages": torch.from_numpy(rollout_advantages).float(),
        "num_items_in_batch": tool_mask.sum(),
        "teacher_input_ids": teacher_input_ids,
        "teacher_attention_mask": torch.ones_like(teacher_input_ids),
        "self_distillation_mask": torch.ones(len(rollouts)),
    }


def build_trl_trainer(arm: str, model: Any, siblings: int) -> Any:
    """One of TRL's trainers around a model, in float32, nothing computed twice to save memory."""
    trl: Any = import_module("trl")
    config: dict[str, Any] = {"report_to": [], "use_cpu": device_name() == "cpu", "bf16": False}
    config |= {"gradient_checkpointing": False}
    config |= {"per_device_train_batch_size": siblings, "num_generations": siblings, "temperature": 1.0}
    with TemporaryDirectory() as temp_dir, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config["output_dir"] = temp_dir
        trainer_args: dict[str, Any] = {
            "model": model,
            "reward_funcs": zero_reward,
            "processing_class": load_chat_tokenizer(Path(temp_dir)),
        }
        trainer_args["train_dataset"] = import_module("datasets").Dataset.from_list([{"prompt": "hello"}] * siblings)
        if arm == SDPO:
            sdpo: Any = import_module("trl.experimental.sdpo")
            sdpo_config: dict[str, Any] = {
                "distillation_mode": "topk_logits",
                "distillation_topk": TOP_K,
                "distillation_alpha": 1.0,
            }
            sdpo_config |= {"distillation_add_tail": True, "teacher_model_kind": "live"}
            trainer = sdpo.SDPOTrainer(args=sdpo.SDPOConfig(**config, **sdpo_config), **trainer_args)
        else:
            trainer = trl.GRPOTrainer(args=trl.GRPOConfig(**config, loss_type="dapo", beta=0.0), **trainer_args)
    trainer.current_gradient_accumulation_steps = 1
    if arm == COMPLETION:
        trainer._get_per_token_logps_and_entropies = completion_logprobs_fn(trainer)
    trainer.model.train()
    return trainer


def build_trl_sft_step(model: Any, rollouts: Sequence[Rollout]) -> Callable[[], None]:
    """A supervised step on the rollouts, as SFTTrainer takes it of a batch that its collator made."""
    trl: Any = import_module("trl")
    rows = import_module("datasets").Dataset.from_list([{"text": "hello"}])
    with TemporaryDirectory() as temp_dir, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = trl.SFTConfig(
            output_dir=temp_dir, report_to=[], use_cpu=device_name() == "cpu", bf16=False, gradient_checkpointing=False
        )
        trainer = trl.SFTTrainer(
            model=model, args=config, train_dataset=rows, processing_class=load_chat_tokenizer(Path(temp_dir))
        )
    trainer.model.train()
    input_ids = torch.from_numpy(np.stack([np.concatenate([one.prompt, one.response]) for one in rollouts])).long()
    learned = torch.from_numpy(
        np.stack([np.concatenate([np.zeros(len(one.prompt), bool), one.response_mask]) for one in rollouts])
    )
    batch = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    return build_trl_step(trainer, batch | {"labels": input_ids.masked_fill(~learned, -100)})


def completion_logprobs_fn(trainer: Any) -> Callable[..., Any]:
    """Log-probabilities and entropies from the completion's logits, by TRL's own function for that.

    Without Triton its fused head makes logits of the prompt as well, tile by tile, once forward and once backward.
    On a CPU this is the faster way, so that we are not compared with the slower one alone.
    """
    log_softmax: Any = import_module("trl.trainer.utils").selective_log_softmax_and_entropy

    def get_logprobs(model: Any, ids: Any, mask: Any, kept: int, **_: Any) -> tuple[Any, Any, None]:
        model_inputs = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": kept + 1, "use_cache": False}
        logits = model(**model_inputs).logits[:, :-1]
        return *log_softmax(logits, ids[:, -kept:], entropy_requires_grad=False, temperature=trainer.temperature), None

    return get_logprobs


def build_trl_step(trainer: Any, batch: TrlBatch) -> Callable[[], None]:
    """Loss, gradient, clipping and the same AdamW as ours."""
    settings = build_bench_recipe().optimizer
    model = trainer.model
    batch = {name: value.to(model.device) for name, value in batch.items()}
    optimizer = build_optimizer(model, settings)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        trainer.compute_loss(model, dict(batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm, foreach=False)
        optimizer.step()

    return step


def zero_reward(completions: Any, **_: Any) -> list[float]:
    """A reward that nobody asks for."""
    return [0.0] * len(completions)


def load_chat_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    CHAT.save(folder)
    loaded: Any = AutoTokenizer.from_pretrained(folder)
    return loaded
