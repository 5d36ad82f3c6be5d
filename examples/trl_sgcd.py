"""SGCD inside TRL's trainer: a small model at the supply desk of examples/real. docs/trl.md explains it line by line.

After `make real peers` and the supervised start of docs/real-model.md, in the folder examples:

    ../.venv-trl/bin/python trl_sgcd.py real/runs/sft/policy
"""

import json
import sys
from pathlib import Path
from typing import Any

REAL = Path(__file__).parent / "real"
sys.path.insert(0, str(REAL))

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from supply_desk import SupplyDesk, judge  # noqa: E402

from sgcd.trl import SGCDConfig, SGCDTrainer  # noqa: E402 - with TRL alone: GRPOConfig, GRPOTrainer

SYSTEM = "You run a supply desk. Find the item, then hand out what was asked for, or all that is left if that is less."


class Desk(SupplyDesk):
    """TRL hands every column of a row to `reset`, and wants a description of every argument."""

    def reset(self, item: str, count: int, shelf: str, stock: int, **_: Any) -> None:
        super().reset(item, count, shelf, stock)

    def find(self, item: str) -> str:
        """Find an item.

        Args:
            item: its name
        """
        return super().find(item)

    def hand_out(self, shelf: str, count: int) -> str:
        """Hand out an item.

        Args:
            shelf: where it is
            count: how many
        """
        return super().hand_out(shelf, count)


def reward(environments: list[Desk], count: list[int], shelf: list[str], stock: list[int], **_: Any) -> list[float]:
    rows = ({"count": c, "shelf": s, "stock": n} for c, s, n in zip(count, shelf, stock, strict=True))
    return [judge(desk, row) for desk, row in zip(environments, rows, strict=True)]


def load_rows() -> Dataset:
    rows = [json.loads(line) for line in (REAL / "data/train.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["prompt"] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["prompt"]}]
    return Dataset.from_list(rows)


def main(policy: str, steps: int = 10, out: str = "runs/trl") -> None:
    arguments = SGCDConfig(
        output_dir=out,
        max_steps=steps,
        per_device_train_batch_size=12,
        num_generations=4,
        max_completion_length=160,
        learning_rate=1e-5,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        log_completions=True,  # its table has a column with the reference
        report_to=[],
    )
    trainer = SGCDTrainer(
        model=policy, reward_funcs=reward, args=arguments, train_dataset=load_rows(), environment_factory=Desk
    )
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
