"""SGCD on verl: the same rollouts, references and credit, trained by verl's workers on Ray."""

from importlib.metadata import PackageNotFoundError, version

from sgcd.errors import EngineError

_TESTED = "0.9"
_INSTALL = "in an environment of its own: make verl, or pip install -c constraints-verl.txt 'sgcd[verl,llm]'"


def check_installed() -> None:
    """Refuse an environment without the verl that the hooks were written for, or with TRL beside it."""
    found = {}
    for name in ("verl", "trl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "verl" not in found:
        raise EngineError(f"engine: verl {_TESTED} is not installed here; install it {_INSTALL}")
    if not found["verl"].startswith(f"{_TESTED}."):
        raise EngineError(
            f"engine: the hooks into verl were written for version {_TESTED}, and {found['verl']} is installed; "
            f"install {_TESTED} {_INSTALL}"
        )
    if "trl" in found:
        raise EngineError(f"engine: TRL {found['trl']} is beside verl, which then fails; install verl {_INSTALL}")
