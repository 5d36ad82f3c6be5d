"""What `sgcd check` knows before a weight is read: memory, the prompt in the window, what stands in for a pad token."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from helpers.families import family
from helpers.tiny_policy import CHAT
from sgcd.cli import main


def config(**changes: object) -> None:
    path = Path("policy/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    assert main(typed) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_memory_is_estimated_and_said(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "recipe.yaml", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    memory = answer["memory"]
    assert answer["sharing"].startswith("common prefixes of siblings once; a group has at most ")
    assert memory["process"] < memory["total"] < memory["machine"]
    assert memory["weights"] == 4 * sum(each.size for each in load_file("policy/model.safetensors").values())


def test_what_does_not_fit_is_refused_before_it_is_loaded(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The config speaks of a policy as large as nobody has; its weights are not looked at."""
    config(hidden_size=2**16, intermediate_size=2**20)
    told = refused(capsys, "check", "recipe.yaml")
    assert "this recipe takes about" in told
    assert "it does not fit. Less memory is needed with policy.lora.rank" in told


@pytest.mark.parametrize("verb", [["check", "recipe.yaml"], ["train", "recipe.yaml", "--run", "A"]])
def test_a_prompt_beyond_the_window_is_refused_before_training(
    at_desk: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    config(max_position_embeddings=4)
    told = refused(capsys, *verb)
    assert "together beyond its window of 4; take a policy with a longer window" in told
    assert not Path("A").exists()


def test_a_limit_beyond_the_window_is_refused_too(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "check", "recipe.yaml", "siblings.limits.tokens=600")
    assert "beyond its window of 512; lower siblings.limits.tokens" in told


def test_without_a_pad_token_it_is_said_what_stands_in(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("policy/tokenizer_config.json")
    told = json.loads(path.read_text())
    del told["pad_token"]
    path.write_text(json.dumps(told))
    assert main(["check", "recipe.yaml"]) == 0
    assert "no pad token, the end of a turn stands in for it" in " ".join(capsys.readouterr().out.split())


def test_a_target_that_matches_nothing_is_one_line(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "check", "recipe.yaml", "policy.lora={rank: 2, targets: [query]}")
    assert "no linear layer of qwen3 is called 'query'; there are: " in told


def test_words_that_the_tokenizer_does_not_know_are_counted_and_three_are_named(
    at_desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = "environment.system=shelf nine holds brass bolts . shelf ten holds hinges"
    assert main(["check", "recipe.yaml", system, "--json"]) == 0
    said = capsys.readouterr()
    assert "task train-0: 10 of 13 words are unknown to the policy's tokenizer, such as 'shelf', 'nine', 'holds'" in (
        " ".join(said.err.split())
    )
    assert json.loads(said.out)["rehearsal"]["task"] == "train-0"


def test_a_few_unknown_words_are_no_warning(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "recipe.yaml", f"environment.system={'cabin ' * 40} hinges"]) == 0
    assert "unknown" not in capsys.readouterr().err


def test_a_group_beyond_a_micro_batch_is_read_in_parts(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "recipe.yaml", "optimizer.micro_batch_tokens=20"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ", in parts of at most 20 tokens " in said
    assert said.endswith("batches training 20 tokens (by the recipe), scoring 32768 tokens (by the memory)")


@pytest.mark.slow
def test_a_policy_whose_layers_cannot_branch_is_named_in_one_line(
    at_desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family("qwen3.5", CHAT.vocab_size, torch.float32).save_pretrained("policy")
    Path("policy/manifest.json").unlink(missing_ok=True)
    assert main(["check", "recipe.yaml", "--json"]) == 0
    said = capsys.readouterr()
    reason = "layers of linear_attention keep a state that cannot branch"
    assert f"scoring.share: qwen3_5_text: {reason}; its prompts are computed for each sibling" in said.err
    assert json.loads(said.out)["sharing"] == f"off: {reason}"
    assert main(["check", "recipe.yaml", "scoring.share=false"]) == 0
    said = capsys.readouterr()
    assert "scoring.share:" not in said.err
    assert "off: scoring.share is false" in said.out
