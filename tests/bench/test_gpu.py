"""`make gpu` in miniature, on the processor: every part runs and writes its figures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen3Config, Qwen3ForCausalLM

from helpers import chats

ROOT = Path(__file__).parents[2]
MEASURE = ROOT / "bench/gpu/measure.py"


def measure(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, MEASURE, *options, "--out", out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows(out: Path, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{part}.jsonl").read_text().splitlines()]


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A random policy whose tokenizer knows any text and whose template lists tools."""
    chat = chats.chat("plain")
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8192}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=chat.vocab_size, **shape, **heads)).save_pretrained(tmp_path / "policy")
    chat.save(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.slow
def test_every_part_writes_its_figures(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGCD_GPU_MODEL", str(tiny_model))
    done = measure(tmp_path / "out", "--tiny")
    parts = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + (tmp_path / "out/errors.txt").read_text()
    assert parts == ["kernel", "head", "step", "peers", "sampling", "long", "real"]
    found = {part: rows(tmp_path / "out", part) for part in parts}
    assert all("machine" in lines[0] and lines[-1]["status"] == "ended" for lines in found.values())
    assert found["kernel"][1]["passed"] > 0
    assert found["head"][1]["B1 and B2"]["two contexts"] > 0
    assert found["step"][2]["largest difference of a log-probability from the processor's"] == 0
    assert found["sampling"][1]["tokens a second"].keys() == {"lockstep", "continuous", "generate"}
    assert [row["arm"] for row in found["long"][2:-1]][-1].startswith("the naive way")
    assert [[row["step"] for row in line.get("sgcd", [])] for line in found["real"]].count([1]) == 1
    evaluated = [line for line in found["real"] if "evaluation" in line]
    assert [line["evaluation"] for line in evaluated] == ["start", "grpo", "sgcd"]
    assert all(line["result"]["modes"]["sampled"]["overall"]["trials"] == 1 for line in evaluated)


@pytest.mark.slow
def test_a_part_that_fails_is_named_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    monkeypatch.setenv("SGCD_GPU_MODEL", str(tmp_path / "broken"))
    done = measure(tmp_path / "out", "--tiny", "long", "real")
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines() if not line.startswith(" ")] == [
        ["long", "ended"],
        ["real", "failed"],
    ]
    assert done.stdout.splitlines()[-1].strip() == "the supervised start failed"
    assert "model: no config.json there" in rows(tmp_path / "out", "real")[-1]["error"]
    assert measure(tmp_path / "out", "colour").returncode == 2
