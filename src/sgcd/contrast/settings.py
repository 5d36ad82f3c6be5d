"""Settings of the contrast room: how siblings become a reference."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.endpoint.settings import EndpointSettings
from sgcd.settings import Settings


class BuiltInWriterSettings(Settings):
    """Siblings' visible calls and outcomes, compared by rule, without a model."""

    name: Literal["built-in"]


class LlmWriterSettings(EndpointSettings):
    """A language model at an OpenAI-compatible endpoint."""

    name: Literal["llm"]


class ReferenceSettings(Settings):
    """How siblings become a reference. A method that needs none, such as GRPO, never asks for one."""

    writer: Annotated[BuiltInWriterSettings | LlmWriterSettings, Field(discriminator="name")] = BuiltInWriterSettings(
        name="built-in"
    )
    """Who writes it."""
    budget: Annotated[int, Field(ge=1)] = 30720
    """Tokens of siblings that the writer reads; where they have more, as many of each outcome as fit are chosen."""
    least: Annotated[int, Field(ge=1)] = 64
    """A reference that had to be cut to the model's window is left out when fewer tokens of it remain."""
