"""Makes an environment of Python in a folder of its own, because a benchmark's packages may not fit sgcd's."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sgcd.errors import EnvironmentFault

_ENVIRONMENT_FILE = "pyvenv.cfg"


def check_environment_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than an environment of Python."""
    if folder.exists() and any(folder.iterdir()) and not (folder / _ENVIRONMENT_FILE).is_file():
        raise EnvironmentFault(f"{folder}: is not empty and no environment of Python; name another --folder")


def make_environment(folder: Path, packages: Sequence[str], benchmark: str) -> None:
    """An environment of this Python with the packages; they are what pip takes after `install`."""
    if not (folder / _ENVIRONMENT_FILE).is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = next(iter(lines), "it gave no reason")
        raise EnvironmentFault(f"{folder}: pip could not install what {benchmark} needs: {reason}")
