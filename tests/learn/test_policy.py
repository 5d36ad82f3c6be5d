"""Policies: what is saved loads with plain transformers, and a folder with a fault is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from sgcd.errors import PolicyError, SgcdError
from sgcd.lab import policy as lab
from sgcd.learn.policy.load import Policy, load_policy, resolve_model, save_policy

IDS = torch.tensor([[5, 9, 30, 11, 7]])


@pytest.fixture(scope="module")
def policy() -> Policy:
    chat = lab.build_lab_chat()
    return Policy(lab.build_lab_model(0, chat.vocab_size).eval(), chat)


@pytest.fixture
def folder(policy: Policy, tmp_path: Path) -> Path:
    save_policy(policy, tmp_path / "policy", {})
    return tmp_path / "policy"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_what_is_saved_loads_with_plain_transformers(policy: Policy, folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(model), logits(policy.model))
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
    encoded: Any = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, return_dict=False)
    assert encoded == policy.chat.encode_conversation(messages, ()).tolist()
    assert model.generation_config.eos_token_id == policy.chat.end_id


def test_saved_and_loaded_again_it_is_the_same_to_the_byte(policy: Policy, folder: Path, tmp_path: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    for name in ("second", "third"):
        policy = load_policy(folder, "float32")
        assert torch.equal(logits(policy.model), logits(load_policy(folder, "float32").model))
        save_policy(policy, tmp_path / name, {})
        folder = tmp_path / name
        assert (folder / "model.safetensors").read_bytes() == weights
    names = {file.name for file in folder.iterdir()}
    assert names == {file.name for file in (tmp_path / "second").iterdir()}
    assert all((folder / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in names)
    with torch.no_grad():
        next(policy.model.parameters())[0, 0] += 1
    save_policy(policy, folder, {})
    assert (folder / "model.safetensors").read_bytes() != weights


def test_the_type_is_the_one_asked_for(folder: Path) -> None:
    assert load_policy(folder, "bfloat16").model.dtype == torch.bfloat16
    assert load_policy(folder, "float32").model.dtype == torch.float32


def test_untied_embeddings_come_back(tmp_path: Path) -> None:
    chat = lab.build_lab_chat()
    config = Qwen3Config(
        vocab_size=chat.vocab_size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8
    )
    config.num_attention_heads = config.num_key_value_heads = 2
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    model: Any = Qwen3ForCausalLM(config).eval()
    save_policy(Policy(model, chat), tmp_path, {})
    again = load_policy(tmp_path, "float32")
    assert torch.equal(logits(again.model), logits(model))
    assert again.model.generation_config is not None
    assert again.model.generation_config.eos_token_id == chat.end_id


def test_the_card_tells_the_facts_and_no_secrets(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretvalue")
    save_policy(load_policy(folder, "float32"), tmp_path / "out", {"step": 40, "environment": "lab | plain"})
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| step | 40 |" in card
    assert "| environment | lab \\| plain |" in card
    told = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    assert b"hf_verysecretvalue" not in told
    assert str(tmp_path).encode() not in told


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def torn(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def half(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"], weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def untokenized(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def fewer_rows(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:100].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    configured(vocab_size=100)(folder)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (without("config.json"), "no config.json there; expected weights, config, tokenizer and chat template"),
        (without("model.safetensors"), "no weights there; expected model.safetensors"),
        (torn, "no causal language model can be read there"),
        (half, "2 of the model's weights are missing, the first is model.layers.1.mlp.up_proj.weight"),
        (configured(model_type="qwen99"), "no causal language model can be read there"),
        (configured(hidden_size=48), "of the model's weights are of another shape than config.json says, the first is"),
        (untokenized, "no tokenizer there; save it beside the weights"),
        (without("tokenizer.json"), "tokenizer"),
        (without("chat_template.jinja"), "chat template"),
        (fewer_rows, "the weights only 100; take the tokenizer that these weights were trained with"),
    ],
)
def test_a_folder_with_a_fault_is_refused_in_one_line(
    break_it: Callable[[Path], None], says: str, folder: Path
) -> None:
    break_it(folder)
    with pytest.raises(SgcdError) as caught:
        load_policy(folder, "float32")
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("start", ["no/such/folder", "nowhere", "./no/such"])
def test_what_is_no_folder_is_refused(start: str) -> None:
    with pytest.raises(PolicyError, match=rf"policy\.start: {start} is not a folder here; give the path of one"):
        load_policy(start, "float32")


def test_an_unknown_warm_start_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"policy\.start: the lab has no warm start 'nope'; there are: "):
        resolve_model("lab:nope")
