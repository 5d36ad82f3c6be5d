"""Settings of an endpoint: which model is asked, how long it is waited for, and what it may cost."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.settings import Settings

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]


class BudgetSettings(Settings):
    """What may be spent over a whole run; beyond it no call is made, and that is said."""

    calls: Count | None = None
    """Calls, the failed ones too; null is no limit."""
    tokens: Count | None = None
    """Tokens of prompts and answers together; null is no limit."""
    money: Amount | None = None
    """Money, by the prices; null is no limit."""


class PriceSettings(Settings):
    """Of a million tokens, in the currency of the budget."""

    prompt: Amount = 0.0
    """Of what is asked."""
    answer: Amount = 0.0
    """Of what is answered, thinking included."""


class ServerSettings(Settings):
    """One OpenAI-compatible chat model: where it is, by which way it is reached, and what it may cost."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", description="http://HOST:PORT/v1")]
    """Where its server is: a URL without a user, a password or a query."""
    model: Annotated[str, Field(min_length=1)]
    """The model's name, as the server knows it."""
    key_env: Annotated[str, Field(pattern=r"^([A-Z][A-Z0-9_]*)?$", description="the NAME of a variable")] = ""
    """The environment variable that holds the key, never the key itself; empty for a server that wants none."""
    timeout: Seconds = 120.0
    """For one call, from its first byte to its last."""
    retries: Count = 4
    """How often a call is made again that failed in passing: time-out, lost connection, 429, 5xx, a cut answer."""
    pause: Seconds = 1.0
    """Seconds before the first of these; each further pause is twice as long, and retry-after is honoured."""
    concurrency: Annotated[int, Field(ge=1)] = 16
    """Calls in flight at once."""
    tokens: Annotated[int, Field(ge=16)] = 2048
    """Of one answer, at most."""
    budget: BudgetSettings = BudgetSettings()
    """What may be spent over a whole run; beyond it no call is made, and that is said."""
    prices: PriceSettings = PriceSettings()
    """Of a million tokens, in the currency of the budget."""
    cache: str = ""
    """A file that remembers answers by the whole request, for this run and others; empty: nothing is remembered."""


class EndpointSettings(ServerSettings):
    """A model that is asked for texts, or for JSON of a certain shape."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """At which the model samples; null leaves it to the server."""
    structure: Literal["schema", "object", "none"] = "schema"
    """How the server is told to answer in JSON: by a schema, as any object, or by the prompt alone."""


CONNECTION_KEYS = ("base_url", "key_env", "timeout", "retries", "pause", "concurrency", "cache", "budget", "prices")
"""By which way a model is reached, and what it may cost: none of it touches what the model is asked."""
