"""TRL's GRPOTrainer with sgcd's credit: `from sgcd.trl import SGCDConfig, SGCDTrainer`."""

from importlib.metadata import PackageNotFoundError, version

_TESTED = "1.16"
try:
    _found = version("trl")
except PackageNotFoundError:
    raise ImportError(
        f"sgcd.trl needs TRL {_TESTED}, and none is installed here; in an environment of its own: "
        f"pip install 'trl>={_TESTED},<1.17'"
    ) from None
if not _found.startswith(f"{_TESTED}."):
    raise ImportError(
        f"sgcd.trl overrides two private methods of TRL {_TESTED}, and TRL {_found} is installed; expected "
        f"pip install 'trl>={_TESTED},<1.17'"
    )

from sgcd.trl.config import SGCDConfig  # noqa: E402 - only where TRL is the one that it was tested with
from sgcd.trl.trainer import SGCDTrainer  # noqa: E402

__all__ = ["SGCDConfig", "SGCDTrainer"]
