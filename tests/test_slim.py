"""The sdist and its wheel without extras, in an environment of its own: light rooms import; torch is asked for."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)


def build_wheel(source: Path, folder: Path) -> Path:
    built = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source),
        cwd=folder,
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sdist gives."""
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"))


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


def test_the_sdist_gives_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path):
    assert {*zipfile.ZipFile(wheel).namelist()} == {*zipfile.ZipFile(build_wheel(ROOT, tmp_path)).namelist()}


def test_the_sdist_has_what_the_site_and_the_tests_need(sdist: Path):
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    tracked = run("git", "ls-files", cwd=ROOT).stdout.splitlines()
    left_out = {name for name in tracked if name not in names and not name.startswith((".ci/", ".git"))}
    assert left_out == set()
    assert not {name for name in names if name.startswith(("examples/real/model", "build/", "runs/"))}


def test_a_start_is_written_without_torch_and_checked_with_it(slim: Path, wheel: Path, tmp_path: Path):
    begun = run(slim / "sgcd", "init", "desk", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    home = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    words = (sys.executable, "-m", "sgcd", "check", "desk.yaml")
    checked = subprocess.run(words, cwd=tmp_path / "desk", env=home, capture_output=True, text=True, timeout=300)
    assert checked.returncode == 0, checked.stderr
    assert "own: 4 train" in checked.stdout


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
