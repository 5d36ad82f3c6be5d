"""What the settings of every room share: frozen, nothing unknown, documented by the string under each field."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


Divergence = Literal["reverse_kl", "forward_kl", "jsd"]
TeacherContext = Literal["reference", "next_reference", "none"]
TeacherModel = Literal["current", "initial"]
