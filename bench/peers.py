"""B6: our step of SGCD beside TRL's steps of GRPO and of SDPO (top-K), on identical recorded rollouts.

    .venv-trl/bin/python bench/peers.py [--rounds 5] > docs/peers.json      (make peers makes .venv-trl)

A random Qwen3 (4 layers, hidden 512, vocabulary 32k) and 2 groups of 2 rollouts, each of 96 written tokens with 48 of
observations between them. A step begins with rollouts and their rewards, and with what the teacher reads; it ends with
the optimiser's. TRL's trainers are given the same ids, masks and advantages as they would make them, through their own
compute_loss. Seconds of the processor, the fastest of the rounds, in turn; memory is the peak of one step in a process
of its own, beyond the model and the optimiser's moments.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgcd.bench.figures import figure, least, most
from sgcd.bench.step import GROUPS, SIBLINGS, TURN, WRITTEN, large, played_groups, rows_of, steps
from sgcd.bench.timing import fastest, peak
from sgcd.lab import policy as lab
from sgcd.learn.batch import grid

K, LR, NORM = 20, 1e-6, 1.0
ARMS = ("sgcd", "grpo of TRL", "sdpo of TRL")


def tokenizer(place: Path) -> Any:
    from transformers import AutoTokenizer

    lab.chat().save(place)
    found: Any = AutoTokenizer.from_pretrained(place)
    return found


def nothing(completions: Any, **_: Any) -> list[float]:
    return [0.0] * len(completions)


def recorded() -> dict[str, Any]:
    """The same rollouts as TRL's trainers hold them, prompts on the left, responses on the right."""
    groups = played_groups(GROUPS, SIBLINGS, WRITTEN // TURN)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rows = rows_of(groups)
    prompt = torch.from_numpy(np.stack([rollout.prompt for rollout in rollouts]).astype(np.int64))
    response = torch.from_numpy(np.stack([rollout.response for rollout in rollouts]).astype(np.int64))
    written = torch.from_numpy(np.stack([rollout.mask for rollout in rollouts]).astype(np.int64))
    reward = np.array([rollout.reward for rollout in rollouts]).reshape(GROUPS, SIBLINGS)
    better = (reward - reward.mean(1, keepdims=True)) / (reward.std(1, ddof=1, keepdims=True) + 1e-6)
    taught = grid(rows).ids
    return {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": response,
        "completion_mask": torch.ones_like(response),
        "tool_mask": written,
        "advantages": torch.from_numpy(better.reshape(-1)).float(),
        "num_items_in_batch": written.sum(),
        "teacher_input_ids": taught,
        "teacher_attention_mask": torch.ones_like(taught),
    }


def theirs(arm: str) -> Callable[[], None]:
    """A step of one of TRL's trainers on the recorded rollouts."""
    trl: Any = import_module("trl")
    sdpo: Any = import_module("trl.experimental.sdpo")
    place = tempfile.mkdtemp()
    told: dict[str, Any] = {"output_dir": place, "report_to": [], "use_cpu": True, "bf16": False, "learning_rate": LR}
    told |= {"per_device_train_batch_size": GROUPS * SIBLINGS, "num_generations": SIBLINGS, "temperature": 1.0}
    told |= {"gradient_checkpointing": False, "max_completion_length": 512}
    given: dict[str, Any] = {"model": large(), "reward_funcs": nothing, "processing_class": tokenizer(Path(place))}
    given["train_dataset"] = import_module("datasets").Dataset.from_list([{"prompt": "hello"}] * 8)
    if arm == "grpo of TRL":
        trainer: Any = trl.GRPOTrainer(args=trl.GRPOConfig(**told, loss_type="dapo", beta=0.0), **given)
        trainer.current_gradient_accumulation_steps = 1
        batch = recorded()
    else:
        how: dict[str, Any] = {"distillation_mode": "topk_logits", "distillation_topk": K, "teacher_model_kind": "live"}
        trainer = sdpo.SDPOTrainer(args=sdpo.SDPOConfig(**told, **how), **given)
        trainer.current_gradient_accumulation_steps = 1
        batch = recorded()
        batch["self_distillation_mask"] = torch.ones(GROUPS * SIBLINGS)
    model = trainer.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, foreach=False)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        trainer.compute_loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), NORM, foreach=False)
        optimizer.step()

    return step


def arm_of(name: str) -> Callable[[], None]:
    return steps(large(), GROUPS, SIBLINGS, WRITTEN)[0]["sgcd"] if name == "sgcd" else theirs(name)


def memory(name: str) -> int:
    step = arm_of(name)
    step()  # the optimiser's moments are there from then on
    return peak(step)


def elsewhere(name: str) -> float:
    command = [sys.executable, __file__, "--memory", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", choices=ARMS)
    told = parser.parse_args()
    torch.set_num_threads(1)
    if told.memory:
        print(memory(told.memory))
        return
    from importlib.metadata import version

    best = fastest({name: arm_of(name) for name in ARMS}, told.rounds)
    bytes_of = {name: elsewhere(name) for name in ARMS}
    ours, grpo, sdpo = (best[name] for name in ARMS)
    cases = [
        most("step of SGCD over TRL's GRPO, time", ours / grpo, 1.40),
        least("TRL's SDPO (top-K) over ours, time", sdpo / ours, 1.3),
        least("TRL's SDPO (top-K) over ours, memory", bytes_of["sdpo of TRL"] / bytes_of["sgcd"], 8),
    ]
    versions = {name: version(name) for name in ("trl", "torch", "transformers")}
    title = "our step beside TRL's, random Qwen3, 4 layers, hidden 512, vocabulary 32,000"
    found = {"schema": 1, "rounds": told.rounds, "versions": versions, "seconds": best, "bytes": bytes_of}
    print(json.dumps({**found, "B6": figure(title, cases)}, indent=1))


if __name__ == "__main__":
    main()
