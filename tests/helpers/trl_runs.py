"""A few steps of TRL in the stock room, whose siblings are scripted: they part at the count of `take`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer, chat_template_utils

from environments.stock_room import StockRoom
from helpers import chats

ROWS = [
    {"prompt": [{"role": "user", "content": ""}], "item": item, "count": count, "shelf": shelf, "stock": stock}
    for item, count, shelf, stock in (("bolts", 41207, "C71-9", 98431), ("nuts", 5120, "D33-2", 7702))
]
WORDS = "".join(json.dumps(row) for row in ROWS) + "Please take for the workshop. Plan take find Done."


class Room(StockRoom):
    """TRL hands every column of a row to `reset`."""

    def reset(self, item: str, count: int, shelf: str, stock: int, **_: Any) -> str:
        return super().reset(item, count, shelf, stock)


def build_tokenizer() -> Any:
    made = chats.tokenizer(chats.QWEN, chats.QWEN_ADDED, text=chats.TEXT + WORDS, vocab_size=500)
    made.eos_token, made.pad_token = "<|im_end|>", "<|endoftext|>"
    template = Path(chat_template_utils.__file__).parents[0] / "chat_templates" / "qwen3.jinja"
    made.chat_template = template.read_text(encoding="utf-8")
    return made


def build_model(folder: Path, tokenizer: Any, hidden_size: int, layers: int) -> str:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.3,  # so that a text in the prompt changes what the model expects
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def call(name: str, **arguments: Any) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def next_turn(text: str, attempt: int) -> str:
    """The next words of the policy: every attempt looks, half of them take the stock instead of the count."""
    row = next(row for row in ROWS if f"take {row['count']} {row['item']}" in text)
    history = text.rpartition("for the workshop.")[2]
    if "Plan" not in history:
        return f"Plan {attempt}. {call('find', item=row['item'])}"
    attempt = int(history.partition("Plan ")[2][0])
    if history.count("<tool_call>") == 1:
        return call("take", shelf=row["shelf"], count=row["count" if attempt % 2 else "stock"])
    return "Done."


def script(trainer: GRPOTrainer, tokenizer: Any) -> None:
    """Let the model write what the attempts say."""
    attempts = iter(range(10**6))

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        rows: list[list[int]] = []
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            text = tokenizer.decode(ids[mask.bool()])
            attempt = next(attempts) if "Plan" not in text else 0
            rows.append(tokenizer(next_turn(text, attempt % 4) + "<|im_end|>")["input_ids"])
        width = max(map(len, rows))
        padded = [[*row, *[tokenizer.pad_token_id] * (width - len(row))] for row in rows]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)

    trainer.model.generate = generate


def build_trainer(
    folder: Path,
    cls: type[GRPOTrainer],
    config: type[GRPOConfig],
    out: str = "out",
    per_process: int = 8,
    steps: int = 2,
    hidden_size: int = 32,
    layers: int = 2,
    **keys: Any,
) -> GRPOTrainer:
    tokenizer = build_tokenizer()
    model = build_model(folder / "model", tokenizer, hidden_size, layers)
    arguments = config(
        output_dir=str(folder / out),
        per_device_train_batch_size=per_process,
        num_generations=4,
        max_completion_length=300,
        max_steps=steps,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        save_strategy="no",
        chat_template_kwargs={"enable_thinking": False},
        **keys,
    )
    trainer = cls(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
        environment_factory=Room,
    )
    script(trainer, tokenizer)
    return trainer


def weights(trainer: GRPOTrainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def run_half_of_each_group(folder: Path) -> None:
    """One of two processes, each with half of every group of siblings."""
    from sgcd.trl import SGCDConfig, SGCDTrainer

    rank = os.environ["RANK"]
    keys = {"k": 20, "segments": {"min_tokens": 1, "entropy_quantile": 1.0, "quiet_tokens": 1}}
    trainer = build_trainer(folder / rank, SGCDTrainer, SGCDConfig, method_kwargs=keys, per_process=2)
    trainer.train()
    result = {
        "weights": weights(trainer),
        "references": list(trainer._logs["extra"]["reference"]),
        "mean_weight": trainer.state.log_history[0].get("sgcd/mean_weight", 0.0),
    }
    torch.save(result, folder / f"{rank}.pt")


if __name__ == "__main__":
    run_half_of_each_group(Path(sys.argv[1]))
