"""The wheel without extras, in an environment of its own: light rooms import; what needs torch says how to get it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT),
        cwd=folder,
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def slim(wheel: Path) -> Path:
    """The folder of programs of an environment that has the wheel and its core dependencies, and no torch."""
    home = wheel.parent / "venv"
    assert run(sys.executable, "-m", "venv", home, cwd=wheel.parent).returncode == 0
    python = home / "bin" / "python"
    installed = run(
        *(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel), cwd=wheel.parent
    )
    assert installed.returncode == 0, installed.stderr
    assert run(python, "-c", "import torch", cwd=wheel.parent).returncode == 1
    return home / "bin"


def test_the_wheel_carries_recipes_and_warm_starts(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"sgcd/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.yaml")}
    starts = ROOT / "src/sgcd/lab/starts"
    weights = {path.relative_to(ROOT / "src").as_posix() for path in starts.rglob("*") if path.is_file()}
    assert recipes
    assert any(name.endswith(".safetensors") for name in weights)
    assert recipes | weights | {"sgcd/py.typed"} <= names


def test_every_light_room_imports(slim: Path, tmp_path: Path):
    walk = """
import importlib, pkgutil, sgcd
heavy = "learn lab study bench trl verl recorded assemble".split()
heavy = tuple(f"sgcd.{name}" for name in heavy)
names = [m.name for m in pkgutil.walk_packages(sgcd.__path__, "sgcd.") if not m.name.startswith(heavy)]
for name in names + ["sgcd.learn.settings", "sgcd.lab.settings"]:
    importlib.import_module(name)
print(len(names))
"""
    done = run(slim / "python", "-c", walk, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_help_comes_up(slim: Path, tmp_path: Path):
    done = run(slim / "sgcd", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_a_run_is_read_without_torch(slim: Path, tmp_path: Path):
    done = run(slim / "sgcd", "compare", "nowhere", "--against", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "torch" not in done.stderr


@pytest.mark.parametrize("verb", ["check", "train"])
def test_what_needs_torch_says_how_to_get_it(slim: Path, tmp_path: Path, verb: str):
    where = ["--run", "A"] if verb == "train" else []
    done = run(slim / "sgcd", verb, ROOT / "recipes/lab/grpo.yaml", *where, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
