"""Facts about the machine and the installed versions, and which of them changed since a run started."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_REPORTED_PACKAGES = ("sgcd", "torch", "transformers", "tokenizers", "numpy", "safetensors")
_PACKAGE = Path(__file__).parents[1]


def collect_provenance(threads: int) -> dict[str, Any]:
    """Versions, commit and machine. Nothing secret: no environment variables, no paths, no names of people."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: package_version(name) for name in _REPORTED_PACKAGES},
        },
        "commit": _source_commit(),
        "machine": {
            "system": platform.system(),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": threads,
        },
    }


def environment_changes(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """One line per changed version or processor: with it, a resumed run may differ in its last bits."""
    recorded_versions = {**recorded["versions"], "processor": recorded["machine"]["processor"]}
    current_versions = {**current["versions"], "processor": current["machine"]["processor"]}
    return [
        f"{name} was {recorded_versions.get(name)} when the run was started and is {value} now: it may not end the "
        "same to the bit"
        for name, value in current_versions.items()
        if recorded_versions.get(name) != value
    ]


def package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor_name() -> str:
    """The processor's model, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _source_commit() -> str | None:
    """The commit of sgcd's sources, with a + when they have changes; None when they are no checkout."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return f"{_git('rev-parse', 'HEAD')}{'+' if _git('status', '--porcelain', '--', '.') else ''}"


def committed_version(path: Path) -> str | None:
    """The commit that last changed a file; None where it has changed since, or is in no repository."""
    folder, name = path.resolve().parent, path.name
    if _git("ls-files", "--error-unmatch", name, folder=folder) is None or _git(
        "status", "--porcelain", "--", name, folder=folder
    ):
        return None
    return _git("log", "-1", "--format=%H", "--", name, folder=folder)


def _git(*arguments: str, folder: Path = _PACKAGE) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None
