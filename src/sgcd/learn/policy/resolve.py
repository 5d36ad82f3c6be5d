"""Where a policy starts: a folder here, a warm start of the lab, or a model of the hub as far as it can be had."""

import re
from importlib.resources import files
from pathlib import Path

from sgcd.errors import PolicyError
from sgcd.text import get_first_line

_LAB_PREFIX = "lab:"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_POLICY_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What a policy consists of; nothing that runs when it is read."""


def resolve_model(start: str | Path) -> Path:
    """The folder that `start` means. A model of the hub is fetched once and taken from the hub's cache from then on."""
    if isinstance(start, str) and start.startswith(_LAB_PREFIX):
        return _resolve_warm_start(start)
    folder = Path(start).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(start, str) and _HUB_NAME.fullmatch(start):
        return _download_from_hub(start)
    raise PolicyError(
        f"policy.start: {start} is not a folder here; give the path of one that save_pretrained wrote, lab:NAME, "
        "or OWNER/NAME of a model on the hub"
    )


def _resolve_warm_start(start: str) -> Path:
    starts = Path(str(files("sgcd"))) / "lab" / "starts"
    known = sorted(path.name for path in starts.iterdir()) if starts.is_dir() else []
    if (name := start.removeprefix(_LAB_PREFIX)) not in known:
        available = (
            ", ".join(_LAB_PREFIX + known_name for known_name in known) or "none; make them with `sgcd lab warm-start`"
        )
        raise PolicyError(f"policy.start: the lab has no warm start {name!r}; there are: {available}")
    return starts / name


def _download_from_hub(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_POLICY_FILES), ignore_patterns=["original/*"]))
    except Exception as problem:  # the hub's client, its transport and the disk each have kinds of their own
        cause = "HF_HUB_OFFLINE forbids to fetch it" if constants.is_offline_mode() else get_first_line(problem)
        raise PolicyError(
            f"policy.start: {name} is neither a folder here nor in the hub's cache, and it could not be fetched "
            f"({cause}); download it where there is a network, or give the path of a folder"
        ) from problem
