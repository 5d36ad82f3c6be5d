"""Settings of an endpoint: model, timeouts, retries, budget."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from sgcd.settings import Settings


class BudgetSettings(Settings):
    """Limits of a whole run; a call that might exceed one is not made and counts as failed."""

    calls: NonNegativeInt | None = None
    """Calls, failed ones included; null is no limit."""
    tokens: NonNegativeInt | None = None
    """Tokens of prompts and answers together; null is no limit."""
    money: NonNegativeFloat | None = None
    """Money, by the prices; null is no limit."""


class PriceSettings(Settings):
    """Prices of a million tokens, in the currency of the budget."""

    prompt: NonNegativeFloat = 0.0
    """Price of a million prompt tokens."""
    answer: NonNegativeFloat = 0.0
    """Price of a million answer tokens, thinking included."""


class ServerSettings(Settings):
    """One OpenAI-compatible chat model: address, connection, budget."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", description="http://HOST:PORT/v1")]
    """URL of the server, without a user, a password or a query."""
    model: Annotated[str, Field(min_length=1)]
    """The model's name on the server."""
    key_env: Annotated[str, Field(pattern=r"^([A-Z][A-Z0-9_]*)?$", description="the NAME of a variable")] = ""
    """The environment variable that holds the key, never the key itself; empty for a server that wants none."""
    timeout: PositiveFloat = 120.0
    """Seconds for one call, from its first byte to its last."""
    retries: NonNegativeInt = 4
    """How often a call is repeated after a timeout, a lost connection, status 429 or 5xx, or a cut answer."""
    pause: PositiveFloat = 1.0
    """Seconds before the first retry; each further pause is twice as long, and retry-after is honoured."""
    concurrency: Annotated[int, Field(ge=1)] = 16
    """Calls in flight at once."""
    tokens: Annotated[int, Field(ge=16)] = 2048
    """Tokens of one answer, at most."""
    budget: BudgetSettings = BudgetSettings()
    """Limits of a whole run; a call that might exceed one is not made and counts as failed."""
    prices: PriceSettings = PriceSettings()
    """Prices of a million tokens, in the currency of the budget."""
    cache: str = ""
    """A file that caches answers by the whole request, for this run and others; empty: no cache."""


class EndpointSettings(ServerSettings):
    """A model that writes texts, or JSON of a certain shape."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """The model's temperature; null: the server decides."""
    structure: Literal["schema", "object", "none"] = "schema"
    """How a request demands JSON: by a schema, as any object, or by the prompt alone."""


CONNECTION_KEYS = ("base_url", "key_env", "timeout", "retries", "pause", "concurrency", "cache", "budget", "prices")
"""Keys of the connection and of the budget; none of them changes a request."""
