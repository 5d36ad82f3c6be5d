"""Ten thousand calls to a server that does everything wrong: no crash, no hang, no lost rollout, all of it counted."""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.group import LAB, pair
from helpers.misbehaving import KINDS, Server
from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.contrast.writers.llm import LanguageModelWriter
from sgcd.endpoint.client import Endpoint
from sgcd.endpoint.settings import EndpointSettings
from sgcd.learn.scoring.teacher_inputs import build_teacher_inputs
from sgcd.learn.training.teacher_scorer import ReferencePrefetcher
from sgcd.records import Group, Task

CALLS = 10_000
KEY = "sk-test-0123456789abcdef"
RARE = 200
"""One call in so many is never answered."""
FAILURES = {
    "hang": "timeout", "limit": "rate limit", "limit now": "rate limit", "broken": "server", "cut": "cut",
    "cut chunk": "cut", "reset": "connection", "nobody": "connection", "half header": "connection",
    "huge body": "huge", "not json": "unreadable", "not a completion": "unreadable", "key": "key",
    "unknown": "refused", "forbidden": "refused",
}  # fmt: skip
"""What of the server's doing is a failed call; all else is an answer that is no reference, or is one."""
REFUSED = {
    "empty": "malformed empty", "null": "malformed empty", "huge": "malformed huge", "words": "malformed json",
    "half json": "malformed json", "wrong parts": "malformed parts", "marker": "malformed markers", "secret": "leak",
    "names": "leak", "long": "malformed length", "huge body": "malformed huge",
}  # fmt: skip


def group(number: int) -> Group:
    """The same two siblings under another name, so that no question is asked twice."""
    made = pair()
    renamed = tuple(
        replace(one, task=f"t{number}", messages=({"role": "system", "content": f"case {number}"}, *one.messages[1:]))
        for one in made.rollouts
    )
    return Group(Task(f"t{number}", "action", {}), renamed)


async def refer(contrast: ReferenceBuilder, endpoint: Endpoint, server: Server, journal: Path) -> list[list[Any]]:
    """Groups and what came of them, until the calls have been made."""
    groups: list[Group] = []
    found: list[ReferenceResult] = []
    async with endpoint.connect(journal):
        while server.requests < CALLS:
            some = [group(len(groups) + number) for number in range(400)]
            async with ReferencePrefetcher(contrast) as referring:
                for each in some:
                    referring.prefetch(each)
                found += [told for each in some if (told := await referring.get(each))]
            groups += some
    return [groups, found]


@pytest.mark.slow
def test_ten_thousand_calls_are_all_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)
    draws = random.Random(7)
    usual = [kind for kind in KINDS if kind != "hang"]

    def plan(number: int, request: dict[str, Any]) -> str:
        return "hang" if draws.randrange(RARE) == 0 else draws.choice([*usual, "good", "good", "good"])

    began = time.monotonic()
    with Server(plan) as server:
        told = EndpointSettings(
            base_url=server.url, model="m", key_env="WRITER_KEY", timeout=10.0, pause=0.001, retries=2, concurrency=64,
            cache=str(tmp_path / "answers.db"),
        )  # fmt: skip
        endpoint = Endpoint(told)
        contrast = ReferenceBuilder(LanguageModelWriter(endpoint), LAB, 10**6, 1)
        groups, found = asyncio.run(refer(contrast, endpoint, server, tmp_path / "calls.jsonl"))
    figures = endpoint.usage_tracker.pop_metrics()
    done = server.done
    causes = Counter(told.cause.partition(":")[0] for told in found if told.cause)
    refused = Counter(why.partition(":")[0] for told in found for why in told.refused)
    written = sum(told.reference is not None for told in found)
    with capsys.disabled():
        print(f"\n{server.requests} calls for {len(groups)} groups in {time.monotonic() - began:.0f} s")
        print(f"the server did: {dict(done.most_common())}")
        print(f"failed calls: {figures.failures}")
        print(f"answers that were no reference: {dict(refused.most_common())}")
        print(f"references {written}; groups without one: {dict(causes.most_common())}")

    assert figures.calls == server.requests >= CALLS
    expected = Counter[str]()
    for kind, count in done.items():
        expected[FAILURES.get(kind, "")] += count
    del expected[""]
    assert figures.failures == dict(expected), "each failure by its kind"
    assert refused["malformed empty"] == done["empty"] + done["null"]
    for kind, cause in REFUSED.items():
        assert refused[cause] == sum(done[other] for other, same in REFUSED.items() if same == cause), kind
    assert written == done["good"] > 0
    assert len(found) == len(groups) == written + causes.total()
    assert [told.task for told in found] == [each.task.id for each in groups], "no group is lost"
    pairs = zip(groups, found, strict=True)
    seen = [one for each, told in pairs for one in build_teacher_inputs(each, told, contrast, 10**6)]
    assert len(seen) == sum(len(each.rollouts) for each in groups), "no rollout is lost"
    assert sum(each.input_ids is not None for each in seen) == 2 * written
    assert all(each.skip_reason == "no_reference" for each in seen if each.input_ids is None)
    for told in found:
        if told.reference:
            assert "<|" not in told.reference.text and "gold" not in told.reference.text
            assert "sesame" not in told.reference.text
    rows = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert Counter(row["outcome"] for row in rows if row["outcome"] != "answered") == expected
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*")) + repr(found).encode()
    assert KEY.encode() not in kept
