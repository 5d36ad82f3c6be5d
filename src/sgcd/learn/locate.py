"""Where a policy starts: a folder here, a warm start of the lab, or a model of the hub as far as it can be had."""

import re
from importlib.resources import files
from pathlib import Path

from sgcd.errors import PolicyError

LAB = "lab:"
ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What a policy consists of; nothing that runs when it is read."""


def locate(start: str | Path) -> Path:
    """The folder that `start` means. A model of the hub is fetched once and taken from the hub's cache from then on."""
    if isinstance(start, str) and start.startswith(LAB):
        return _warm_start(start)
    folder = Path(start).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(start, str) and ON_HUB.fullmatch(start):
        return _from_hub(start)
    raise PolicyError(
        f"policy.start: {start} is not a folder here; give the path of one that save_pretrained wrote, lab:NAME, "
        "or OWNER/NAME of a model on the hub"
    )


def _warm_start(start: str) -> Path:
    starts = Path(str(files("sgcd"))) / "lab" / "starts"
    known = sorted(path.name for path in starts.iterdir()) if starts.is_dir() else []
    if (name := start.removeprefix(LAB)) not in known:
        there = ", ".join(LAB + other for other in known) or "none; make them with `sgcd lab warm-start`"
        raise PolicyError(f"policy.start: the lab has no warm start {name!r}; there are: {there}")
    return starts / name


def _from_hub(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED), ignore_patterns=["original/*"]))
    except Exception as problem:  # the hub's client, its transport and the disk each have kinds of their own
        cause = "HF_HUB_OFFLINE forbids to fetch it" if constants.is_offline_mode() else first_line(problem)
        raise PolicyError(
            f"policy.start: {name} is neither a folder here nor in the hub's cache, and it could not be fetched "
            f"({cause}); download it where there is a network, or give the path of a folder"
        ) from problem


def first_line(problem: Exception) -> str:
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
