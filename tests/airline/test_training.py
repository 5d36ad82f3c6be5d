"""The smallest run of each recipe: three steps of a random policy that calls tools and answers."""

import json
from math import log
from pathlib import Path
from typing import Any

import pytest

from helpers import chats
from sgcd.act.environments.airline.description import Domain
from sgcd.chat import Chat
from sgcd.cli import main

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "recipes/airline"


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


READS = call("list_all_airports")
WRITES = call("send_certificate", user_id="mia_li_3668", amount=100)
SHARES = {"<|im_end|>": 0.45, READS: 0.2, WRITES: 0.1, "The": 0.25}
"""Whole calls are tokens of this policy. One that writes fails a task in which nothing was to be written."""


def save_tiny_policy(folder: Path, domain: Domain) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from sgcd.learn.policy.load import Policy, save_policy

    template = (chats.TEMPLATES / "plain.jinja").read_text(encoding="utf-8")
    added, text = [*chats.QWEN_ADDED[:2], READS, WRITES], domain.system + json.dumps(domain.tools)
    tokenizer = chats.tokenizer(chats.QWEN, added, text=text, vocab_size=2000)
    tokenizer.chat_template = template
    chat = Chat(tokenizer, "a tiny policy")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    config = Qwen3Config(
        vocab_size=chat.vocab_size,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=chat.end_id,
        pad_token_id=chat.pad_id,
        **shape,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 4.0  # the same everywhere, so its column of the head acts as a bias
        model.lm_head.weight.zero_()
        for word, share in SHARES.items():
            model.lm_head.weight[chat.tokenizer.convert_tokens_to_ids(word), 0] = log(chat.vocab_size * share * 4) / 4.0
    save_policy(Policy(model.eval(), chat), folder, {})


@pytest.mark.parametrize("arm", ["grpo_kl", "sdpo", "sgcd"])
def test_three_steps(arm: str, folder: Path, domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_policy(Path("policy"), domain)
    keys = [
        "steps=3",
        "policy={start: policy}",
        f"environment={{name: airline, folder: '{folder}'}}",
        "siblings={groups: 1, group_size: 4, rounds: 4, limits: {turns: 3, tokens: 1000, observation: 512}}",
        "sampler={slots: 8, mode: lockstep}",
        "reference={writer: {name: built-in}}",
        "optimizer.lr=0.01",
        "evaluation={split: test, every: 3, tasks: 2, trials: 1}",
    ]
    assert main(["train", str(RECIPES / f"{arm}.yaml"), *keys, "--run", "run"]) == 0
    steps = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    trials = [json.loads(line) for line in Path("run/evaluation.jsonl").read_text().splitlines()]
    assert [step["broken"] for step in steps] == [0, 0, 0]
    assert sum(step["mixed"] for step in steps) >= 2
    assert {trial["broken"] for trial in trials} == {""}
    assert {(trial["task"], trial["floor"]) for trial in trials} == {("airline-2", 1.0), ("airline-6", 1.0)}
    assert any(trial["calls"] for trial in trials)
    if arm == "sgcd":
        rows = [json.loads(line) for path in Path("run/references").iterdir() for line in path.open()]
        assert rows and all(row.get("text") or row["cause"] for row in rows)
        # a success writes nothing; with outcomes exchanged, the first step's reference says what failures call
        assert any("send_certificate" in row.get("swapped", "") for row in rows)


def demonstration(domain: Domain, task_id: str) -> dict[str, Any]:
    function = {"name": "list_all_airports", "arguments": "{}"}
    return {
        "messages": [
            {"role": "system", "content": domain.system},
            {"role": "assistant", "content": domain.greeting},
            {"role": "user", "content": domain.tasks[task_id].first_words},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "1", "content": "[]"},
            {"role": "assistant", "content": "The"},
        ],
        "tools": [*domain.tools],
    }


def test_three_steps_of_the_supervised_start(
    folder: Path, domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_policy(Path("policy"), domain)
    lines = [json.dumps(demonstration(domain, task_id)) for task_id in [*domain.tasks][:6]]
    Path("talks.jsonl").write_text("\n".join(lines) + "\n")
    keys = [
        "policy={start: policy}",
        f"environment={{name: airline, folder: '{folder}'}}",
        "siblings={limits: {turns: 3, tokens: 1000, observation: 512}}",
        "sampler={slots: 8, mode: lockstep}",
        "supervised={data: [talks.jsonl], epochs: 1, batch_size: 2}",
        "evaluation={split: test, every: 3, tasks: 2, trials: 1}",
    ]
    assert main(["sft", str(RECIPES / "sft.yaml"), *keys, "--run", "run"]) == 0
    trials = [json.loads(line) for line in Path("run/evaluation.jsonl").read_text().splitlines()]
    assert {trial["step"] for trial in trials} == {0, 3}
    assert {trial["broken"] for trial in trials} == {""}
    assert Path("run/policy/model.safetensors").is_file()
