"""A run as small as one can be: a desk that wants to hear one word, and a policy that says any."""

import json
from math import log
from pathlib import Path

CLASS = '''
"""A desk that wants to hear one word."""


class Desk:
    def reset(self, word: str) -> str:
        self.word = word
        return f"please say {word}"

    def find_user(self, name: str) -> str:
        """Find a customer.

        Args:
            name: of the customer
        """
        if name == "max":
            raise KeyError("no such customer")
        return f"user {name}"


def heard(environment: Desk, answer: str) -> float:
    return float(environment.word in answer.split())


class Mute:
    def reset(self, word: str) -> str:
        return word

    def get_reward(self) -> float:
        return 0.0


class Unjudged:
    def reset(self, word: str) -> str:
        return word

    def find_user(self, name: str) -> str:
        """Find a customer.

        Args:
            name: of the customer
        """
        return name
'''

RECIPE = """\
# One word at a desk.
version: 1
seed: 3
steps: 3
policy: {start: policy}
environment: {name: own, class: "front:Desk", tasks: train.jsonl, dev: dev.jsonl}
siblings: {groups: 2, group_size: 4, limits: {turns: 2, tokens: 32}}
sampler: {slots: 16}
method: {name: grpo}
optimizer: {lr: 0.02}
evaluation: {every: 2, trials: 2}
checkpoint: {every: 1, keep: 2}
"""


def build(folder: Path) -> Path:
    """Write policy, class, tasks and recipe into `folder`; whoever uses them stands in it."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from sgcd.lab.policy import build_lab_chat
    from sgcd.learn.policy.load import Policy, save_policy

    words = build_lab_chat()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=words.vocab_size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=words.end_id,
            pad_token_id=words.pad_id,
        )
    )
    word_shares = {"<|end|>": 0.6, "yes": 0.3, "no": 0.3, "<call>": 0.15, "</call>": 0.1}
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 4.0  # the same everywhere, so its column of the head acts as a bias
        model.lm_head.weight.zero_()
        for word, share in word_shares.items():
            model.lm_head.weight[words.tokenizer.convert_tokens_to_ids(word), 0] = log(words.vocab_size * share) / 4.0
    save_policy(Policy(model.eval(), words), folder / "policy", {})
    (folder / "front.py").write_text(CLASS)
    for split, count in (("train", 12), ("dev", 6)):
        rows = [{"id": f"{split}-{i}", "word": ("yes", "no")[i % 2], "verifier": "front:heard"} for i in range(count)]
        for row, category in zip(rows, ("action", "information") * count, strict=False):
            row["category"] = category
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder
