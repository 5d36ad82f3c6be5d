"""A run with an adapter, as a person makes it: trained, stopped, resumed, evaluated; only the recipe says LoRA."""

from pathlib import Path

import pytest

from sgcd.cli import main
from sgcd.learn.policy.load import load_policy

LORA = "policy.lora={rank: 2, targets: [q_proj, v_proj]}"


@pytest.mark.slow
def test_a_run_with_an_adapter_goes_on_and_is_evaluated(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "recipe.yaml", "--run", "whole", "steps=2", LORA]) == 0
    assert main(["train", "recipe.yaml", "--run", "stopped", "steps=1", LORA]) == 0
    assert main(["train", "--run", "stopped", "--resume", "steps=2"]) == 0
    for name in ("policy/model.safetensors", "policy/adapter/adapter_model.safetensors"):
        assert Path("whole", name).read_bytes() == Path("stopped", name).read_bytes()
    assert main(["evaluate", "whole", "--split", "dev"]) == 0
    assert not hasattr(load_policy("whole/policy", "float32").model, "peft_config")
