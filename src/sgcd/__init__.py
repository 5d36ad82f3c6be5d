"""Sibling-Guided Credit Distillation. These names are the credit room alone: arrays in, weights out, without torch.

Each is loaded when it is first used, so that `import sgcd` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgcd.credit.advantage import advantages
    from sgcd.credit.divergence import divergence_features, divergence_of, entropy_of, server_outcomes
    from sgcd.credit.segments import segment
    from sgcd.credit.settings import SegmentSettings
    from sgcd.credit.weights import drop_disagreeing_segments, weigh
    from sgcd.credit_records import Credit, Segments
    from sgcd.errors import SgcdError

__all__ = [
    "Credit",
    "SegmentSettings",
    "Segments",
    "SgcdError",
    "advantages",
    "divergence_features",
    "divergence_of",
    "drop_disagreeing_segments",
    "entropy_of",
    "segment",
    "server_outcomes",
    "weigh",
]

_HOME = {
    "advantages": "credit.advantage",
    "divergence_features": "credit.divergence",
    "divergence_of": "credit.divergence",
    "entropy_of": "credit.divergence",
    "server_outcomes": "credit.divergence",
    "Segments": "credit_records",
    "segment": "credit.segments",
    "SegmentSettings": "credit.settings",
    "drop_disagreeing_segments": "credit.weights",
    "weigh": "credit.weights",
    "SgcdError": "errors",
    "Credit": "credit_records",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sgcd' has no attribute {name!r}")
    return getattr(import_module(f"sgcd.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
