"""The credit room alone: the names of the package, without torch and at no cost, and the example that uses them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sgcd

ROOT = Path(__file__).parents[2]


def python(*arguments: str | Path) -> str:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_name_is_there_and_is_what_editors_are_told():
    tree = ast.parse((ROOT / "src/sgcd/__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    told = {alias.name: node.module for node in imports for alias in node.names}
    assert set(sgcd.__all__) <= set(dir(sgcd))
    assert 8 <= len(sgcd.__all__) <= 12
    for name in sgcd.__all__:
        assert getattr(sgcd, name).__module__ == told[name]
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        _ = sgcd.segmnt  # type: ignore[attr-defined]


def test_the_package_is_loaded_by_name_and_never_with_torch():
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import sgcd
assert not {"numpy", "pydantic"} & set(sys.modules), "import sgcd is not free"
for name in sgcd.__all__:
    getattr(sgcd, name)
print(len(sgcd.__all__))
"""
    assert python("-c", code).strip() == str(len(sgcd.__all__))


def test_the_example_runs_and_places_credit_at_the_spike():
    said = python("examples/credit_from_arrays.py").splitlines()
    rows = {int(line.split()[0]): line.split()[1:] for line in said if line.split()[0].isdigit()}
    assert "segment [30, 40) with saliency 1.00" in said[1]
    credited = [token for token, (_, weight, _) in rows.items() if weight == "2.00"]
    assert credited == [30, 31, 34, 35, 36, 37, 38, 39]  # 32 and 33 are a literal
    assert rows[29][2] == "-0.866"
    assert rows[30][2] == "-1.732"
