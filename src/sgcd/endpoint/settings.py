"""Settings of an endpoint: its model, its connection, its time limit and its budget."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.settings import Count, NonNegative, NonNegativeCount, Positive, Settings


class BudgetSettings(Settings):
    """Limits of a whole run; at a limit the program makes no further call and reports it."""

    calls: NonNegativeCount | None = None
    """Calls, failed ones included; null is no limit."""
    tokens: NonNegativeCount | None = None
    """Tokens of prompts and answers together; null is no limit."""
    money: NonNegative | None = None
    """Money, by the prices; null is no limit."""


class PriceSettings(Settings):
    """Prices of a million tokens, in the currency of the budget."""

    prompt: NonNegative = 0.0
    """Price of prompts."""
    answer: NonNegative = 0.0
    """Price of answers, thinking included."""


class ServerSettings(Settings):
    """One OpenAI-compatible chat model: its address, its connection and its budget."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", description="http://HOST:PORT/v1")]
    """The server's URL, without a user, a password or a query."""
    model: Annotated[str, Field(min_length=1)]
    """The model's name, as the server knows it."""
    key_env: Annotated[str, Field(pattern=r"^([A-Z][A-Z0-9_]*)?$", description="the NAME of a variable")] = ""
    """The environment variable that holds the key, never the key itself; empty for a server that wants none."""
    timeout: Positive = 120.0
    """Seconds for one call, from its first byte to its last."""
    retries: NonNegativeCount = 4
    """Retries of a call after a passing failure: time-out, lost connection, 429, 5xx, a cut answer."""
    pause: Positive = 1.0
    """Seconds before the first retry; each further pause is twice as long, and retry-after is honoured."""
    concurrency: Count = 16
    """Calls in flight at once."""
    tokens: Annotated[int, Field(ge=16)] = 2048
    """Most tokens of one answer."""
    budget: BudgetSettings = BudgetSettings()
    """Limits of a whole run; at a limit the program makes no further call and reports it."""
    prices: PriceSettings = PriceSettings()
    """Prices of a million tokens, in the currency of the budget."""
    cache: str = ""
    """A file that stores answers by the whole request, for this run and others; empty: no answer is stored."""


class EndpointSettings(ServerSettings):
    """A model that returns texts, or JSON of a certain shape."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """Sampling temperature; null leaves it to the server."""
    structure: Literal["schema", "object", "none"] = "schema"
    """How a request demands JSON: by a schema, as any object, or by the prompt alone."""


CONNECTION_KEYS = ("base_url", "key_env", "timeout", "retries", "pause", "concurrency", "cache", "budget", "prices")
"""Keys of the connection and the budget; none of them changes a request's content."""
