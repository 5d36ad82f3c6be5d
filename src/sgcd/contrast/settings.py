"""Settings of the reference: who writes it and how long it may be."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.endpoint.settings import EndpointSettings
from sgcd.settings import Count, Settings


class BuiltInWriterSettings(Settings):
    """Siblings' visible calls and outcomes, compared by rule, without a model."""

    name: Literal["built-in"]


class TraceWriterSettings(Settings):
    """The success that is nearest to the failures is shown itself, its literals masked, without a model."""

    name: Literal["trace"]


class OracleWriterSettings(Settings):
    """A control of the lab: failures are compared with a play without an error, by the built-in rule."""

    name: Literal["oracle"]


class LlmWriterSettings(EndpointSettings):
    """A language model at an OpenAI-compatible endpoint."""

    name: Literal["llm"]


WriterSettings = Annotated[
    BuiltInWriterSettings | TraceWriterSettings | OracleWriterSettings | LlmWriterSettings, Field(discriminator="name")
]


class ReferenceSettings(Settings):
    """How siblings become a reference. A method without references, such as GRPO, ignores this section."""

    writer: WriterSettings = BuiltInWriterSettings(name="built-in")
    """Who writes it."""
    budget: Count = 30720
    """Tokens of siblings that the writer reads; of a longer group, as many siblings of each outcome as fit."""
    min_tokens: Count = 64
    """A reference that was cut to the model's window is dropped when it keeps fewer tokens than this."""
