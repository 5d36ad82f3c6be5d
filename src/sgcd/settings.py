"""The base class of all settings, and the types that they share."""

from typing import Annotated, Literal

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
TeacherContext = Literal["reference", "next_reference", "none"]
TeacherModel = Literal["current", "initial"]


class Settings(BaseModel):
    """Frozen, without unknown keys; the string under each field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
