"""An endpoint is asked, asked again, remembered, counted and paid for; whatever a server does."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.misbehaving import Server
from helpers.simulated_users import calls
from sgcd.endpoint.client import Endpoint, RequestOptions
from sgcd.endpoint.completion import Completion, ToolCall
from sgcd.endpoint.failures import retry_after_seconds
from sgcd.endpoint.settings import EndpointSettings
from sgcd.endpoint.usage import RequestFailed
from sgcd.errors import EndpointError, RecipeError
from sgcd.storage.metrics import SpentBudget, TokenCounts

KEY = "sk-test-0123456789abcdef"
ASKED = [{"role": "user", "content": "hello"}]


def settings(url: str = "http://127.0.0.1:9/v1", **more: Any) -> EndpointSettings:
    told: dict[str, Any] = {"base_url": url, "model": "m", "timeout": 5.0, "pause": 0.001, "retries": 2}
    return EndpointSettings.model_validate({**told, **more})


def using(made: Endpoint, work: Callable[[Endpoint], Awaitable[Any]], journal: Path | None = None) -> Any:
    async def within() -> Any:
        async with made.connect(journal):
            return await work(made)

    return asyncio.run(within())


async def ask(made: Endpoint, text: str = "hello") -> Any:
    """The answer's text, or the kind of failure."""
    try:
        return (await made.complete([{"role": "user", "content": text}])).text
    except RequestFailed as nothing:
        return nothing


def once(kind: str, **more: Any) -> tuple[Any, Any, Server]:
    """What comes of one question to a server that always does the same, and the figures."""
    with Server(lambda number, request: kind) as server:
        made = Endpoint(settings(server.url, **more))
        return using(made, ask), made.usage_tracker.pop_metrics(), server


def test_a_question_has_an_answer_that_is_counted_and_paid_for() -> None:
    text, told, server = once("good", prices={"prompt": 2.0, "answer": 10.0})
    assert json.loads(text)["checks"] == ["find_user", "get_booking"]
    assert (told.requests, told.calls, told.failures, told.unanswered) == (1, 1, {}, {})
    assert told.tokens == TokenCounts(prompt=1000, answer=100)
    assert told.money == pytest.approx(0.003)
    assert (told.spent.calls, told.spent.tokens, told.spent.money) == (1, 1100, pytest.approx(0.003))
    assert 0 < told.seconds.median <= told.seconds.max < 5
    request = json.loads(server.bodies[0])
    assert request == {"model": "m", "messages": ASKED, "max_completion_tokens": 2048, "temperature": 0.0}


@pytest.mark.parametrize(
    ("kind", "failure", "calls"),
    [
        ("limit", "rate limit", 3),
        ("limit now", "rate limit", 3),
        ("broken", "server", 3),
        ("cut", "cut", 3),
        ("cut chunk", "cut", 3),
        ("reset", "connection", 3),
        ("nobody", "connection", 3),
        ("half header", "connection", 3),
        ("not json", "unreadable", 3),
        ("not a completion", "unreadable", 3),
        ("huge body", "huge", 1),
        ("unknown", "refused", 1),
        ("forbidden", "refused", 1),
    ],
)
def test_each_failure_has_its_kind_and_passing_ones_are_tried_again(kind: str, failure: str, calls: int) -> None:
    problem, told, server = once(kind)
    assert isinstance(problem, RequestFailed) and problem.kind == failure
    assert told.failures == {failure: calls}
    assert told.unanswered == {failure: 1}
    assert (told.calls, server.requests, told.repeated) == (calls, calls, calls - 1)


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    problem, told, _ = once("hang", timeout=0.2, retries=1)
    assert problem.kind == "timeout"
    assert told.failures == {"timeout": 2}
    assert told.seconds.max < 2


def test_a_server_that_drips_is_not_waited_for_either() -> None:
    """Each piece comes in time, the whole does not."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.02)

    async def within() -> Any:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            made = Endpoint(settings(f"http://127.0.0.1:{port}/v1", timeout=0.3, retries=0))
            async with made.connect():
                return await ask(made)

    assert asyncio.run(within()).kind == "timeout"


def test_nobody_listens() -> None:
    made = Endpoint(settings("http://127.0.0.1:9/v1"))
    problem = using(made, ask)
    assert (problem.kind, problem.detail) == ("connection", "the server could not be reached, or hung up, 3 times")


def test_a_failure_that_passes_is_only_counted() -> None:
    with Server(lambda number, request: ["broken", "limit now", "good"][number]) as server:
        made = Endpoint(settings(server.url))
        assert json.loads(using(made, ask))
    told = made.usage_tracker.pop_metrics()
    assert told.failures == {"server": 1, "rate limit": 1}
    assert (told.unanswered, told.repeated, told.calls) == ({}, 2, 3)


def test_retry_after_is_honoured_and_one_that_asks_too_much_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr("sgcd.endpoint.client.asyncio.sleep", sleep)
    once("limit now")
    assert [seconds for seconds in slept if seconds] == [0.02, 0.02]  # the zeros are the server's
    assert retry_after_seconds({"retry-after": "12"}) == 12
    assert retry_after_seconds({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert [retry_after_seconds({"retry-after": odd}) for odd in ("", "soon", "nan", "inf", "1e999")] == [None] * 5
    monkeypatch.setattr("sgcd.endpoint.failures.retry_after_seconds", lambda headers: 3600.0)
    problem, _, server = once("limit")
    assert problem.detail == "the server asks to be left alone for 3600 s"
    assert server.requests == 1


def test_pauses_grow_and_are_never_longer_than_a_minute() -> None:
    from sgcd.endpoint.failures import AttemptFailed

    made = Endpoint(settings(pause=8.0))
    for attempt, most in ((0, 8.0), (1, 16.0), (2, 32.0), (3, 60.0), (50, 60.0)):
        assert most / 2 <= made._retry_delay(AttemptFailed("server", ""), attempt) <= most


def test_so_many_calls_are_in_flight_and_no_more() -> None:
    with Server() as server:
        server.wait = 0.1
        made = Endpoint(settings(server.url, concurrency=3))
        flying: list[int] = []

        async def many(made: Endpoint) -> None:
            asked = [asyncio.create_task(ask(made, str(n))) for n in range(9)]
            while not all(task.done() for task in asked):
                flying.append(len(made.usage_tracker._in_flight))
                await asyncio.sleep(0.01)

        using(made, many)
    assert max(flying) == 3
    assert server.requests == 9


@pytest.mark.parametrize(
    ("budget", "made", "words"),
    [
        ({"calls": 3}, 3, "3 calls were made, budget.calls is 3"),
        ({"tokens": 5000}, 3, "3300 tokens were used, budget.tokens is 5000"),
        ({"money": 0.028}, 3, "0.009 was spent, budget.money is 0.028"),
        ({"calls": 0}, 0, "0 calls were made, budget.calls is 0"),
    ],
)
def test_beyond_the_budget_no_call_is_made_and_it_is_said(budget: dict[str, Any], made: int, words: str) -> None:
    with Server() as server:
        endpoint = Endpoint(settings(server.url, budget=budget, prices={"prompt": 2.0, "answer": 10.0}))

        async def many(endpoint: Endpoint) -> list[Any]:
            return await asyncio.gather(*(ask(endpoint, str(n)) for n in range(8)))

        found = using(endpoint, many)
    refused = [one for one in found if isinstance(one, RequestFailed)]
    assert (server.requests, len(refused)) == (made, 8 - made)
    assert {one.kind for one in refused} == {"budget"}
    assert refused[-1].detail == words
    assert endpoint.usage_tracker.pop_metrics().unanswered == {"budget": 8 - made}


def test_what_a_run_has_spent_counts_when_it_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "calls.jsonl"
    with Server(lambda number, request: ["good", "broken"][number % 2]) as server:
        told = settings(server.url, budget={"calls": 3}, retries=0)
        using(Endpoint(told), ask, journal)
        with journal.open("a") as file:
            file.write('{"schema": 1, "at":')  # torn by a stop
        using(Endpoint(told), ask, journal)
        third = Endpoint(told)
        using(third, ask, journal)
        assert third.usage_tracker.pop_metrics().spent == SpentBudget(calls=3, tokens=2200)
        assert using(Endpoint(told), ask, journal).kind == "budget"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["answered", "server", "answered"]


def test_money_needs_prices() -> None:
    with pytest.raises(RecipeError, match=r"writer.budget.money: needs writer.prices"):
        Endpoint(settings(budget={"money": 1.0}), "writer")


def test_the_same_question_is_asked_once_and_another_one_again(tmp_path: Path) -> None:
    with Server() as server:
        told = settings(server.url, cache=str(tmp_path / "answers.db"))
        first = Endpoint(told)
        assert using(first, ask) == using(first, ask)
        again = Endpoint(told)
        assert json.loads(using(again, ask))
        assert server.requests == 1
        using(again, lambda made: ask(made, "another"))
        using(Endpoint(settings(server.url, cache=told.cache, temperature=1.0)), ask)
        assert server.requests == 3
    figures = again.usage_tracker.pop_metrics()
    assert (figures.requests, figures.cached, figures.calls) == (2, 1, 1)


def test_calls_come_back_from_the_cache_as_they_went_in(tmp_path: Path) -> None:
    wanted = calls(("look", {"name": "mia"}), ("leave", "{"))
    how = RequestOptions(seed=2**33 + 5, tools=({"type": "function", "function": {"name": "look"}},), max_tokens=99)
    with Server(lambda number, request: wanted) as server:
        made = Endpoint(settings(server.url, cache=str(tmp_path / "answers.db")))
        first = using(made, lambda made: made.complete(ASKED, options=how))
        assert using(made, lambda made: made.complete(ASKED, options=how)) == first
        assert using(made, lambda made: made.complete(ASKED, options=replace(how, seed=6))) == first
        assert server.requests == 2, "another seed is another question"
        assert [call.name for call in first.calls] == ["look", "leave"]
        assert (first.calls[1].arguments, first.finish_reason, first.num_tokens) == ("{", "tool_calls", 10)
        request = json.loads(server.bodies[0])
    assert (request["seed"], request["tools"], request["max_completion_tokens"]) == (5, [*how.tools], 99)
    assert "temperature" not in request, "what is asked in another way is asked in that way alone"


def test_an_answer_of_an_older_cache_is_still_read(tmp_path: Path) -> None:
    with Server() as server:
        made = Endpoint(settings(server.url, cache=str(tmp_path / "answers.db")))
        using(made, ask)
        with sqlite3.connect(tmp_path / "answers.db") as file:
            file.execute("UPDATE answers SET answer = ?", ['{"text": "as it was", "finish": "length"}'])
        assert using(made, lambda made: made.complete(ASKED)) == Completion("as it was", "length")
        with sqlite3.connect(tmp_path / "answers.db") as file:
            file.execute("UPDATE answers SET answer = ?", ['{"text": "", "calls": [7]}'])
        assert using(made, ask) and server.requests == 2
        assert made.usage_tracker.pop_metrics().forgotten == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": None, "refusal": "no"}, Completion("no", "refusal", num_tokens=10, num_prompt_tokens=50)),
        ({"content": "yes", "refusal": ""}, Completion("yes", num_tokens=10, num_prompt_tokens=50)),
        (
            {"content": None, "tool_calls": [{"function": {"name": "look", "arguments": {"a": 1}}}], "finish": "stop"},
            Completion("", "stop", (ToolCall("call_0", "look", '{"a": 1}'),), 10, 50),
        ),
        (
            {"content": "", "tool_calls": [{"id": "x", "function": {"name": "look"}}]},
            Completion("", "tool_calls", (ToolCall("x", "look", "{}"),), 10, 50),
        ),
        ({"content": "yes", "tool_calls": []}, Completion("yes", num_tokens=10, num_prompt_tokens=50)),
    ],
)
def test_servers_say_the_same_in_several_ways(message: dict[str, Any], expected: Completion) -> None:
    with Server(lambda number, request: json.dumps(message)) as server:
        assert using(Endpoint(settings(server.url)), lambda made: made.complete(ASKED)) == expected


def test_empty_answers_are_not_remembered(tmp_path: Path) -> None:
    with Server(lambda number, request: "empty") as server:
        made = Endpoint(settings(server.url, cache=str(tmp_path / "answers.db")))
        assert using(made, ask) == using(made, ask) == ""
        assert server.requests == 2


def test_many_coroutines_and_several_endpoints_share_a_cache(tmp_path: Path) -> None:
    with Server() as server:
        told = settings(server.url, cache=str(tmp_path / "answers.db"))

        async def within() -> None:
            async with Endpoint(told).connect() as one, Endpoint(told).connect() as other:
                await asyncio.gather(*(ask(each, str(n)) for n in range(50) for each in (one, other)))
                made = server.requests
                await asyncio.gather(*(ask(each, str(n)) for n in range(50) for each in (one, other)))
                assert server.requests == made

        asyncio.run(within())


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a letter to somebody else, long enough to be taken for a file")
    with pytest.raises(EndpointError, match="not a cache of answers"):
        Endpoint(settings(cache=str(tmp_path / "text"))).check_ready()
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE things (name TEXT)").connection.commit()
    with pytest.raises(EndpointError, match="not a cache of answers"):
        Endpoint(settings(cache=str(tmp_path / "other"))).check_ready()
    with pytest.raises(EndpointError, match="the cache's folder does not exist"):
        Endpoint(settings(cache=str(tmp_path / "no/where"))).check_ready()


def test_a_cache_that_breaks_is_counted_and_the_model_is_asked(tmp_path: Path) -> None:
    with Server() as server:
        made = Endpoint(settings(server.url, cache=str(tmp_path / "answers.db")))

        async def broken(made: Endpoint) -> Any:
            assert made._cache
            made._cache.open().execute("DROP TABLE answers")
            return await ask(made)

        assert json.loads(using(made, broken))
        assert made.usage_tracker.pop_metrics().forgotten == 2


def test_without_its_key_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OUR_KEY", raising=False)
    made = Endpoint(settings(key_env="OUR_KEY"))
    with pytest.raises(EndpointError, match="the environment variable OUR_KEY holds no key"):
        made.check_ready()
    assert made.describe() == "m at http://127.0.0.1:9/v1, key from OUR_KEY, which is NOT SET, budget none"
    monkeypatch.setenv("OUR_KEY", "sk-\u00e9\n-x")
    with pytest.raises(EndpointError, match="holds characters that no key can have") as refused:
        made.check_ready()
    assert "sk-" not in str(refused.value)


def test_no_key_but_its_own_is_sent_and_none_is_ever_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OUR_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-key-altogether")
    caplog.set_level(logging.DEBUG)
    kinds = ["forbidden", "key", "broken", "good"]
    with Server(lambda number, request: kinds[min(number, 3)]) as server:
        made = Endpoint(settings(server.url, key_env="OUR_KEY", cache=str(tmp_path / "answers.db")))

        async def several(made: Endpoint) -> list[Any]:
            return [await ask(made), await ask(made), await ask(made)]

        found = using(made, several, tmp_path / "calls.jsonl")
    assert [getattr(one, "kind", "answered") for one in found] == ["refused", "key", "answered"]
    said = repr(found) + repr(made.usage_tracker.pop_metrics()) + caplog.text + made.describe()
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in said
    assert KEY.encode() not in kept
    assert "another-key" not in said + "".join(server.bodies)


def test_an_answer_knows_whether_it_is_whole() -> None:
    assert Completion("a").is_complete
    assert not Completion("a", "length").is_complete


@pytest.mark.parametrize(
    ("structure", "expected"), [("schema", "json_schema"), ("object", "json_object"), ("none", None)]
)
def test_a_server_is_told_the_structure_in_the_way_it_understands(structure: str, expected: str | None) -> None:
    with Server() as server:
        made = Endpoint(settings(server.url, structure=structure, temperature=None))
        using(made, lambda made: made.complete(ASKED, {"type": "object"}))
        request = json.loads(server.bodies[0])
    assert request.get("response_format", {}).get("type") == expected
    assert "temperature" not in request


@pytest.mark.parametrize("url", ["ftp://x", "http://user:pass@x/v1", "http://x/v1?key=1", "http://", "x"])
def test_a_url_has_no_password_and_no_query(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        settings(url)
