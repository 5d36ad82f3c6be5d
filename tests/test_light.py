"""The light rooms come up without torch, transformers or anything else that only training needs."""

import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = [
    "sgcd.errors",
    "sgcd.records",
    "sgcd.credit_records",
    "sgcd.settings",
    "sgcd.recipe.schema",
    "sgcd.chat",
    "sgcd.storage.run_folder",
    "sgcd.cli",
    "sgcd.act",
    "sgcd.contrast",
    "sgcd.credit",
    "sgcd.measure",
    "sgcd.show",
    "sgcd.build_tasks",
    "sgcd.recorded.build",
]

WALK = """
import importlib, pkgutil, sys
for heavy in ("torch", "transformers", "tokenizers"):
    sys.modules[heavy] = None
def come_up(name):
    module = importlib.import_module(name)
    for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
        come_up(f"{name}.{inner.name}")
for name in sys.argv[1:]:
    come_up(name)
print(sum(name.startswith("sgcd.") for name in sys.modules))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


def test_every_file_of_the_light_rooms_imports_without_torch():
    done = python("-c", WALK, *LIGHT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(LIGHT)


def test_settings_of_the_heavy_rooms_import_without_torch():
    done = python("-c", WALK, "sgcd.learn.settings", "sgcd.lab.settings")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", [["--help"], ["train", "--help"], ["lab", "--help"], ["references", "--help"]])
def test_help_imports_nothing_heavy(verb: list[str]):
    done = python("-X", "importtime", "-c", "from sgcd.cli import main; main()", *verb)
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "tokenizers", "scipy.stats", "safetensors"}


@pytest.mark.parametrize("verb", [["check"], ["train", "--run", "nowhere"]])
def test_a_verb_that_needs_torch_says_how_to_get_it(verb: list[str]):
    script = """
import sys
for heavy in ("torch", "transformers", "tokenizers"):
    sys.modules[heavy] = None
from sgcd.cli import main
sys.exit(main())
"""
    recipe = str(Path(__file__).parents[1] / "recipes/lab/grpo.yaml")
    done = python("-c", script, *verb, recipe)
    assert done.returncode == 2
    assert (
        done.stderr
        == "sgcd: torch is not installed, and this command needs it: in a checkout of sgcd, pip install '.[train]'\n"
    )
