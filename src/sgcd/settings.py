"""The base class of all settings, the types that they share, and nested settings by their dotted names."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
NonNegativeCount = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
"""A share of a whole, never nothing."""
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
ObjectName = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""A class or a function as module:name; the current folder is on the path."""
Divergence = Literal["reverse_kl", "forward_kl", "jsd"]
TeacherContext = Literal[
    "reference", "swapped", "next_reference", "leave_one_out", "neutral", "sibling", "answer", "skill", "none"
]
ComparisonTarget = Literal["student", "swapped", "next_reference"]
"""What a teacher is compared with: its divergence and its gap are between the two."""
TeacherModel = Literal["current", "average", "initial", "outside"]
Support = Literal["teacher", "student"]
"""Whose likeliest tokens are the outcomes of a divergence."""
WeightControl = Literal["uniform_weights", "mean_weight", "shuffled_weights", "tied_weights"]
Control = Literal["none", "permuted", WeightControl]
"""What a run takes away from its method to show what it learns without."""
TrackerName = Literal["tensorboard", "trackio", "wandb"]
UNDECIDED_ENTROPY = 0.1
"""From this entropy on, in nats, the student is undecided: it sampled one of several tokens."""


class Settings(BaseModel):
    """Frozen, without unknown keys; the string under each field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def flatten_mapping(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """
    >>> flatten_mapping({"turns": 8, "of": {"a": 1, "b": {"c": 2}}})
    {'turns': 8, 'of.a': 1, 'of.b.c': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= flatten_mapping(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
