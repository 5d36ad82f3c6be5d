"""The made-up method and environment of docs/contributing.md: each touches two files, and then a recipe may name it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgcd.credit import methods
from sgcd.storage.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
DIFFS = re.findall(r"^```diff\n(.*?)^```", (ROOT / "docs/contributing.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)


def apply_diff(diff: str, root: Path) -> list[str]:
    """Adds the lines of a diff to a copy of the sources, and the new class to the union. Returns the touched files."""
    touched = list[str]()
    for section in re.split(r"^\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        name, *lines = section.splitlines()
        union = next((line[1:].split()[0] for line in lines if line.startswith("-") and not line.startswith("---")), "")
        added = [line[1:] for line in lines if line.startswith("+") and not (union and line.startswith(f"+{union} ="))]
        text = "\n".join(added) + "\n"
        path = root / name
        if union:
            [new] = re.findall(r"^class (\w+)", text, re.MULTILINE)
            before, after = re.split(rf"^(?={union} = )", path.read_text(), flags=re.MULTILINE)
            text = before + text + re.sub(r"(\w+Settings)(?=,|\n)", rf"\1 | {new}", after, count=1)
        path.write_text(text)
        touched.append(name)
    return touched


@pytest.mark.slow
@pytest.mark.parametrize(
    ("diff", "key"), [(DIFFS[0], "method={name: first_turn}"), (DIFFS[1], "environment={name: greet}")]
)
def test_a_new_one_touches_its_own_file_and_one_union(diff: str, key: str, tmp_path: Path) -> None:
    if key.startswith("method") and not hasattr(methods, "build_method"):
        pytest.skip("methods are not yet built by their name")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    touched = apply_diff(diff, tmp_path)
    assert len(touched) == 2
    assert touched[1].endswith("/settings.py")
    sgcd = [sys.executable, "-m", "sgcd", "train", str(ROOT / "recipes/lab/grpo.yaml"), "--run", str(tmp_path / "run")]
    small = ["steps=1", "siblings={groups: 1, group_size: 8, rounds: 4}", "evaluation.every=2", "evaluation.trials=0"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run([*sgcd, *small, key], env=environment, capture_output=True, text=True, check=False)
    # the lab's policy need not greet anybody: then the step is played and moves nothing, which is exit 1
    assert done.returncode == 0 or "none of 1 step moved the policy" in done.stderr, done.stderr[-3000:]
    assert RunFolder.open(tmp_path / "run").read_metrics()[0].broken == 0
    assert (tmp_path / "run/policy/model.safetensors").is_file()
