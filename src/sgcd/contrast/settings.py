"""Settings of the contrast room: how siblings become a reference."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.settings import Settings


class ReferenceSettings(Settings):
    """How siblings become a reference. A method that needs none, such as GRPO, never asks for one."""

    writer: Literal["built-in"] = "built-in"
    """Who writes it: built-in, from the siblings' visible calls and outcomes, without a model."""
    budget: Annotated[int, Field(ge=1)] = 30720
    """Tokens of siblings that the writer reads; where they have more, as many of each outcome as fit are chosen."""
    least: Annotated[int, Field(ge=1)] = 64
    """A reference that had to be cut to the model's window is left out when fewer tokens of it remain."""
