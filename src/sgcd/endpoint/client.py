"""Client for one OpenAI-compatible chat model: retries, response cache, concurrency limit, usage and budget."""

import asyncio
import json
import os
import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sgcd.endpoint.cache import CompletionCache
from sgcd.endpoint.completion import Completion, parse_completion
from sgcd.endpoint.failures import TRANSIENT_FAILURES, AttemptFailed, failure_from_exception
from sgcd.endpoint.settings import EndpointSettings, ServerSettings
from sgcd.endpoint.usage import RequestFailed, TokenUsage, UsageTracker
from sgcd.errors import EndpointError, RecipeError
from sgcd.storage.metrics import EndpointUsage

_MAX_PAUSE_SECONDS = 60.0
"""Longest pause between calls, unless the server wants a longer one."""
_BYTES_PER_TOKEN = 16
"""A response of more bytes than this for each token that it may have is not read to its end."""
_MIN_KEY_LENGTH = 8
"""Shorter keys are not searched for in answers, because they could be words."""
_ENVELOPE_BYTES = 65_536
"""Bytes of a response around the answer's text."""


ChatMessage = Mapping[str, Any]
"""One message in the format of chat completions."""


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options of a request besides its messages.

    >>> RequestOptions(seed=2**31 + 5).to_request()
    {'seed': 5}
    """

    temperature: float | None = None
    """None: the server decides."""
    seed: int | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    max_tokens: int | None = None
    """A lower limit for the answer than that of the settings."""

    def to_request(self) -> dict[str, Any]:
        """Fields of the request. Some servers accept no more than 31 bits of a seed."""
        fields = {
            "temperature": self.temperature,
            "seed": None if self.seed is None else self.seed % 2**31,
            "tools": [dict(tool) for tool in self.tools] or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


class Endpoint:
    """One model, used from one event loop at a time. No message and no file contains the key."""

    def __init__(self, settings: ServerSettings, where: str = "endpoint") -> None:
        self.settings = settings
        self.where = where
        """The section of the recipe, for messages."""
        if settings.budget.money is not None and not (settings.prices.prompt or settings.prices.answer):
            raise RecipeError(f"{where}.budget.money: needs {where}.prices, what a million tokens cost; got none")
        self.usage_tracker = UsageTracker(settings.budget, settings.prices)
        self._cache = CompletionCache(Path(settings.cache)) if settings.cache else None
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._client: Any = None
        self._random = random.Random()

    # -- opening and closing ------------------------------------------------------------------------------------------

    @property
    def api_key(self) -> str:
        """The key in the environment, read at each use; empty without one."""
        return os.environ.get(self.settings.key_env, "").strip() if self.settings.key_env else ""

    def describe(self) -> str:
        """Model, key, budget and cache in words, without a call."""
        key_text = f"key from {self.settings.key_env}" if self.settings.key_env else "no key"
        unset = ", which is NOT SET" if self.settings.key_env and not self.api_key else ""
        cache = f", answers remembered in {self.settings.cache}" if self.settings.cache else ""
        limits = {name: limit for name, limit in self.settings.budget.model_dump().items() if limit is not None}
        budget = ", ".join(f"{limit:g} {name}" for name, limit in limits.items())
        return f"{self.settings.model} at {self.settings.base_url}, {key_text}{unset}, budget {budget or 'none'}{cache}"

    def check_ready(self) -> None:
        """Raise for every problem that can be found before the first call."""
        if self.settings.key_env and not self.api_key:
            raise EndpointError(
                f"{self.where}: the environment variable {self.settings.key_env} holds no key; set it, or leave "
                f"{self.where}.key_env empty for a server that wants none"
            )
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise EndpointError(f"{self.where}: {self.settings.key_env} holds characters that no key can have")
        if self._cache:
            self._cache.open()

    @asynccontextmanager
    async def connect(self, journal: Path | None = None) -> AsyncGenerator["Endpoint", None]:
        """Open the client; `journal` gets a row for each call. Leaving does not wait for answers."""
        self.check_ready()
        import openai

        if journal:
            self.usage_tracker.open_journal(journal)
        omitted_headers: Any = {
            "OpenAI-Organization": openai.Omit(),
            "OpenAI-Project": openai.Omit(),
        }  # not of this recipe
        self._client = openai.AsyncOpenAI(
            api_key=self.api_key or "none",
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=0,
            default_headers={"Accept-Encoding": "identity", **omitted_headers},
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=self.settings.timeout),
        )
        try:
            yield self
        finally:
            client, self._client = self._client, None
            await client.close()
            if self._cache:
                self._cache.close()
            self.usage_tracker.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        schema: Mapping[str, Any] | None = None,
        options: RequestOptions | None = None,
    ) -> Completion:
        """Return the model's answer, from the cache if it has one. Raises RequestFailed only.

        `options` replace the temperature of the settings.
        """
        request = self._build_request(messages, schema, options)
        request_hash = sha256(json.dumps([self.settings.base_url, request], sort_keys=True).encode()).hexdigest()
        self.usage_tracker.count("requests")
        if (cached := self._load_cached(request_hash)) is not None:
            self.usage_tracker.count("cached")
            return cached
        try:
            completion = await self._complete_with_retries(request, request_hash)
        except RequestFailed as failure:
            self.usage_tracker.count_failed(failure.kind)
            raise
        self._save_cached(request_hash, completion)
        return completion

    def _build_request(
        self, messages: Sequence[ChatMessage], schema: Mapping[str, Any] | None, options: RequestOptions | None
    ) -> dict[str, Any]:
        settings = self.settings
        default_options = (
            RequestOptions(settings.temperature) if isinstance(settings, EndpointSettings) else RequestOptions()
        )
        options = options or default_options
        request: dict[str, Any] = {"model": settings.model, "messages": [dict(message) for message in messages]}
        request |= {
            "max_completion_tokens": min(settings.tokens, options.max_tokens or settings.tokens),
            **options.to_request(),
        }
        structure = settings.structure if isinstance(settings, EndpointSettings) else "none"
        if schema and structure == "schema":
            json_schema = {"name": "answer", "strict": True, "schema": dict(schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        elif schema and structure == "object":
            request["response_format"] = {"type": "json_object"}
        return request

    async def _complete_with_retries(self, request: Mapping[str, Any], request_hash: str) -> Completion:
        """Repeat the call until it is answered, fails for good, or no retry is left."""
        # A text has at most as many tokens as bytes; the 64 are for the template of the server.
        request_text = json.dumps([request["messages"], request.get("tools", [])], ensure_ascii=False)
        request_bytes = request_text.encode(errors="surrogatepass")
        max_usage = TokenUsage(len(request_bytes) + 64, request["max_completion_tokens"])
        for attempt in range(self.settings.retries + 1):
            if attempt:
                self.usage_tracker.count("repeated")
            try:
                return await self._attempt(request, request_hash, max_usage)
            except AttemptFailed as failure:
                if failure.kind not in TRANSIENT_FAILURES or attempt == self.settings.retries:
                    attempts = f", {attempt + 1} times" if attempt else ""
                    raise RequestFailed(failure.kind, failure.detail + attempts) from None
                await asyncio.sleep(self._retry_delay(failure, attempt))
        raise AssertionError("unreachable")

    def _retry_delay(self, failure: AttemptFailed, attempt: int) -> float:
        if failure.retry_after is None:
            return min(_MAX_PAUSE_SECONDS, self.settings.pause * 2**attempt) * self._random.uniform(0.5, 1.0)
        if failure.retry_after > max(_MAX_PAUSE_SECONDS, self.settings.timeout):
            raise RequestFailed(failure.kind, f"the server asks to be left alone for {failure.retry_after:.0f} s")
        return failure.retry_after

    async def _attempt(self, request: Mapping[str, Any], request_hash: str, max_usage: TokenUsage) -> Completion:
        """Make one call; it counts against the budget whether it succeeds or not."""
        async with self._slots:
            await self.usage_tracker.reserve(max_usage)
            started, usage, outcome = time.perf_counter(), max_usage, "cancelled"
            try:
                completion, reported_usage = await self._send(request)
                usage, outcome = reported_usage or max_usage, ""
                if len(self.api_key) >= _MIN_KEY_LENGTH and completion.contains(self.api_key):
                    raise AttemptFailed("key", "the answer quotes the key", billed=True)
                return completion
            except AttemptFailed as failure:
                outcome = failure.kind
                usage = usage if failure.billed else TokenUsage()
                raise
            finally:
                seconds = time.perf_counter() - started
                await self.usage_tracker.settle(
                    max_usage, usage, outcome=outcome, seconds=seconds, request_hash=request_hash
                )

    async def _send(self, request: Mapping[str, Any]) -> tuple[Completion, TokenUsage | None]:
        body = bytearray()
        response_started = False
        limit = _ENVELOPE_BYTES + _BYTES_PER_TOKEN * self.settings.tokens
        try:
            async with (
                asyncio.timeout(self.settings.timeout),
                self._client.chat.completions.with_streaming_response.create(**request) as response,
            ):
                response_started = True
                async for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > limit:
                        raise AttemptFailed("huge", f"the answer has more than {limit} bytes", billed=True)
        except AttemptFailed:
            raise
        except Exception as problem:
            raise failure_from_exception(problem, response_started) from None
        return parse_completion(bytes(body))

    # -- cache --------------------------------------------------------------------------------------------------------

    def _load_cached(self, request_hash: str) -> Completion | None:
        """Read the cache. An error in the cache is counted, and the model is called instead."""
        try:
            cached = self._cache.get(request_hash) if self._cache else None
            return Completion.from_json(json.loads(cached)) if cached else None
        except (sqlite3.Error, ValueError, TypeError, AttributeError):
            self.usage_tracker.count("forgotten")
            return None

    def _save_cached(self, request_hash: str, completion: Completion) -> None:
        if not self._cache or completion.is_empty:
            return
        try:
            self._cache.put(request_hash, json.dumps(completion.to_json()))
        except sqlite3.Error:
            self.usage_tracker.count("forgotten")


def check_endpoints(endpoints: Mapping[str, Endpoint]) -> None:
    """Refuse what would fail at the first call. Nothing is called."""
    for endpoint in endpoints.values():
        endpoint.check_ready()


@asynccontextmanager
async def connect_endpoints(
    endpoints: Mapping[str, Endpoint], journals: Mapping[str, Path]
) -> AsyncGenerator[None, None]:
    """Connect every endpoint. One with a path in `journals` writes a row per call there."""
    async with AsyncExitStack() as stack:
        for name, endpoint in endpoints.items():
            await stack.enter_async_context(endpoint.connect(journals.get(name)))
        yield


def pop_endpoint_metrics(endpoints: Mapping[str, Endpoint]) -> dict[str, EndpointUsage]:
    """Calls, tokens and cost of each endpoint since the last call of this function."""
    return {name: endpoint.usage_tracker.pop_metrics() for name, endpoint in endpoints.items()}
