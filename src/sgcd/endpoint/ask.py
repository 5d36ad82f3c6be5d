"""One OpenAI-compatible chat model: asked, waited for, asked again, remembered, counted, paid for."""

import asyncio
import json
import os
import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sgcd.endpoint.account import Account, Unanswered, Use
from sgcd.endpoint.answer import Answer
from sgcd.endpoint.cache import Cache
from sgcd.endpoint.failures import PASSING, Failure, failure_of
from sgcd.endpoint.received import received
from sgcd.endpoint.settings import EndpointSettings, ServerSettings
from sgcd.errors import EndpointError, RecipeError

LONGEST = 60.0
"""Seconds of a pause between calls, unless the server asks for more."""
BYTES = 16
"""Of an answer, for each token that it may have; whatever is longer is not read to its end."""
KEY = 8
"""Characters from which on a key is looked for in answers; a shorter one is a word."""
ENVELOPE = 65_536
"""Bytes around the answer's text."""


Words = Mapping[str, Any]
"""One message of a conversation, as chat completions have it."""


@dataclass(frozen=True, slots=True)
class How:
    """What goes with a question besides its words.

    >>> How(seed=2**31 + 5).told()
    {'seed': 5}
    """

    temperature: float | None = None
    """None leaves it to the server."""
    seed: int | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tokens: int | None = None
    """Of the answer, where fewer are wanted than the settings allow."""

    def told(self) -> dict[str, Any]:
        """As a request has it. Some servers take no more than 31 bits of a seed."""
        parts = {
            "temperature": self.temperature,
            "seed": None if self.seed is None else self.seed % 2**31,
            "tools": [dict(tool) for tool in self.tools] or None,
        }
        return {name: part for name, part in parts.items() if part is not None}


class Endpoint:
    """Asks one model, from one event loop at a time. Nothing that it says or writes holds the key."""

    def __init__(self, settings: ServerSettings, where: str = "endpoint") -> None:
        self.settings = settings
        self.where = where
        """The section of the recipe, for messages."""
        if settings.budget.money is not None and not (settings.prices.prompt or settings.prices.answer):
            raise RecipeError(f"{where}.budget.money: needs {where}.prices, what a million tokens cost; got none")
        self.account = Account(settings.budget, settings.prices)
        self._cache = Cache(Path(settings.cache)) if settings.cache else None
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._client: Any = None
        self._random = random.Random()

    # -- opening and closing ------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """From the environment, each time anew; empty where there is none."""
        return os.environ.get(self.settings.key_env, "").strip() if self.settings.key_env else ""

    def told(self) -> str:
        """What would be called, in words, without calling it."""
        key = f"key from {self.settings.key_env}" if self.settings.key_env else "no key"
        unset = ", which is NOT SET" if self.settings.key_env and not self.key else ""
        cache = f", answers remembered in {self.settings.cache}" if self.settings.cache else ""
        limits = {name: limit for name, limit in self.settings.budget.model_dump().items() if limit is not None}
        budget = ", ".join(f"{limit:g} {name}" for name, limit in limits.items())
        return f"{self.settings.model} at {self.settings.base_url}, {key}{unset}, budget {budget or 'none'}{cache}"

    def ready(self) -> None:
        """Refuse whatever can be known to be wrong before the first call."""

        if self.settings.key_env and not self.key:
            raise EndpointError(
                f"{self.where}: the environment variable {self.settings.key_env} holds no key; set it, or leave "
                f"{self.where}.key_env empty for a server that wants none"
            )
        if not (self.key.isascii() and self.key.isprintable()):
            raise EndpointError(f"{self.where}: {self.settings.key_env} holds characters that no key can have")
        if self._cache:
            self._cache.open()

    @asynccontextmanager
    async def opened(self, journal: Path | None = None) -> AsyncGenerator["Endpoint", None]:
        """May be asked inside; `journal` gets a row for each call. Who leaves waits for no answer."""
        self.ready()
        import openai

        if journal:
            self.account.keep(journal)
        own: Any = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}  # not of this recipe
        self._client = openai.AsyncOpenAI(
            api_key=self.key or "none",
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=0,
            default_headers={"Accept-Encoding": "identity", **own},
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=self.settings.timeout),
        )
        try:
            yield self
        finally:
            client, self._client = self._client, None
            await client.close()
            if self._cache:
                self._cache.close()
            self.account.close()

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask(
        self, messages: Sequence[Words], schema: Mapping[str, Any] | None = None, how: How | None = None
    ) -> Answer:
        """The model's answer, from the cache where it is known. Raises Unanswered, and nothing else.

        `how` stands in for the temperature of the settings.
        """
        request = self._request(messages, schema, how)
        name = sha256(json.dumps([self.settings.base_url, request], sort_keys=True).encode()).hexdigest()
        self.account.count("asked")
        if (known := self._remembered(name)) is not None:
            self.account.count("cached")
            return known
        try:
            answer = await self._persistently(request, name)
        except Unanswered as nothing:
            self.account.give_up(nothing.kind)
            raise
        self._remember(name, answer)
        return answer

    def _request(self, messages: Sequence[Words], schema: Mapping[str, Any] | None, how: How | None) -> dict[str, Any]:
        told = self.settings
        own = How(told.temperature) if isinstance(told, EndpointSettings) else How()
        how = how or own
        request: dict[str, Any] = {"model": told.model, "messages": [dict(message) for message in messages]}
        request |= {"max_completion_tokens": min(told.tokens, how.tokens or told.tokens), **how.told()}
        structure = told.structure if isinstance(told, EndpointSettings) else "none"
        if schema and structure == "schema":
            shape = {"name": "answer", "strict": True, "schema": dict(schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": shape}
        elif schema and structure == "object":
            request["response_format"] = {"type": "json_object"}
        return request

    async def _persistently(self, request: Mapping[str, Any], name: str) -> Answer:
        """Ask until there is an answer, a failure that will not pass, or no repetition left."""
        # No tokenizer makes more tokens than there are bytes; the rest is for the server's own marks.
        told = json.dumps([request["messages"], request.get("tools", [])], ensure_ascii=False)
        asked = told.encode(errors="surrogatepass")
        worst = Use(len(asked) + 64, request["max_completion_tokens"])
        for attempt in range(self.settings.retries + 1):
            if attempt:
                self.account.count("repeated")
            try:
                return await self._once(request, name, worst)
            except Failure as failure:
                if failure.kind not in PASSING or attempt == self.settings.retries:
                    times = f", {attempt + 1} times" if attempt else ""
                    raise Unanswered(failure.kind, failure.detail + times) from None
                await asyncio.sleep(self._pause(failure, attempt))
        raise AssertionError("unreachable")

    def _pause(self, failure: Failure, attempt: int) -> float:
        if failure.wait is None:
            return min(LONGEST, self.settings.pause * 2**attempt) * self._random.uniform(0.5, 1.0)
        if failure.wait > max(LONGEST, self.settings.timeout):
            raise Unanswered(failure.kind, f"the server asks to be left alone for {failure.wait:.0f} s")
        return failure.wait

    async def _once(self, request: Mapping[str, Any], name: str, worst: Use) -> Answer:
        """One call, counted and paid for whatever becomes of it."""
        async with self._slots:
            await self.account.reserve(worst)
            began, use, outcome = time.perf_counter(), worst, "cancelled"
            try:
                answer, told = await self._call(request)
                use, outcome = told or worst, ""
                if len(self.key) >= KEY and answer.holds(self.key):
                    raise Failure("key", "the answer quotes the key", billed=True)
                return answer
            except Failure as failure:
                outcome = failure.kind
                use = use if failure.billed else Use()
                raise
            finally:
                await self.account.settle(worst, use, outcome, time.perf_counter() - began, name)

    async def _call(self, request: Mapping[str, Any]) -> tuple[Answer, Use | None]:
        body = bytearray()
        reading = False
        limit = ENVELOPE + BYTES * self.settings.tokens
        try:
            async with (
                asyncio.timeout(self.settings.timeout),
                self._client.chat.completions.with_streaming_response.create(**request) as response,
            ):
                reading = True
                async for piece in response.iter_bytes():
                    body += piece
                    if len(body) > limit:
                        raise Failure("huge", f"the answer has more than {limit} bytes", billed=True)
        except Failure:
            raise
        except Exception as problem:
            raise failure_of(problem, reading) from None
        return received(bytes(body))

    # -- remembering --------------------------------------------------------------------------------------------------

    def _remembered(self, name: str) -> Answer | None:
        """Whatever is wrong with the cache, the model can still be asked."""
        try:
            found = self._cache.get(name) if self._cache else None
            return Answer.restore(json.loads(found)) if found else None
        except (sqlite3.Error, ValueError, TypeError, AttributeError):
            self.account.count("forgotten")
            return None

    def _remember(self, name: str, answer: Answer) -> None:
        if not self._cache or answer.empty:
            return
        try:
            self._cache.put(name, json.dumps(answer.plain()))
        except sqlite3.Error:
            self.account.count("forgotten")
