"""Heavy text work leaves the event loop free, and a chat can be used by several threads at once."""

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from helpers import chats, subword_chats
from helpers.group import DONE, LAB, OPENING, call, pair, rollout, run, siblings
from sgcd.act.environments.worker_thread import WorkerThread
from sgcd.chat import Chat
from sgcd.contrast.leakage.literals import find_literals, tokens_outside_literals
from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult, build_reference, prepare_reference
from sgcd.contrast.text_thread import run_in_text_thread
from sgcd.contrast.trace import build_traces
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.lab import policy
from sgcd.records import Group, Message

NUM_THREADS = 8


def group_with_long_answers(seed: int, num_lines: int) -> Group:
    """Eight siblings; the tools answer with lines that no cache has seen."""
    source = random.Random(seed)

    def answer() -> str:
        return "\n".join(
            f"booking b{source.randrange(10**9)} city oslo %2{source.randrange(9)}" for _ in range(num_lines)
        )

    def lengthened(message: Message) -> Message:
        return {**message, "content": answer()} if message["role"] == "tool" else message

    rollouts = [
        rollout(
            [call("find_user", "name", "mia"), *[call("get_booking", "booking", "b01")] * (sibling % 2), DONE],
            ["done"] * (1 + sibling % 2),
            sibling % 2 == 0,
            private=("mia",),
        )
        for sibling in range(8)
    ]
    return siblings(*(replace(one, messages=tuple(map(lengthened, one.messages))) for one in rollouts))


async def read_answers(until: "asyncio.Task[Any]") -> tuple[int, float]:
    """Tool answers that the loop read before a task was done, and the longest wait for one of them."""
    tool, num_answers, longest = WorkerThread(), 0, 0.0
    while not until.done():
        start = time.perf_counter()
        await tool.run(lambda: "done")
        longest, num_answers = max(longest, time.perf_counter() - start), num_answers + 1
    tool.close()
    return num_answers, longest


@pytest.mark.slow
def test_tool_answers_are_read_while_the_reference_of_a_huge_group_is_prepared() -> None:
    start = time.perf_counter()
    prepare_reference(group_with_long_answers(0, 600), LAB, budget=10**9)
    serial_seconds = time.perf_counter() - start

    async def build_and_read() -> tuple[ReferenceResult, int, float]:
        building = asyncio.create_task(
            build_reference(group_with_long_answers(1, 600), LAB, BuiltInWriter(), budget=10**9)
        )
        num_answers, longest = await read_answers(building)
        return building.result(), num_answers, longest

    result, num_answers, longest = run(build_and_read())
    assert result.reference is not None
    assert num_answers > 10
    assert longest < serial_seconds / 2


def test_text_work_is_done_in_order_by_one_thread_and_dropped_when_nobody_waits() -> None:
    release, started = threading.Event(), threading.Event()
    done: list[tuple[str, int]] = []

    def first() -> None:
        started.set()
        release.wait(10)
        done.append(("first", threading.get_ident()))

    def note(name: str) -> str:
        done.append((name, threading.get_ident()))
        return name

    async def work() -> list[str | None]:
        beginning = asyncio.create_task(run_in_text_thread(first))
        dropped, *others = (asyncio.create_task(run_in_text_thread(note, name)) for name in ("dropped", "b", "c"))
        await asyncio.to_thread(started.wait, 10)
        dropped.cancel()
        await asyncio.sleep(0)
        release.set()
        return list(await asyncio.gather(beginning, *others))

    assert run(work()) == [None, "b", "c"]
    assert [name for name, _ in done] == ["first", "b", "c"]
    assert len({thread for _, thread in done} - {threading.get_ident()}) == 1


def test_what_text_work_raises_reaches_the_caller() -> None:
    builder = ReferenceBuilder(BuiltInWriter(), LAB, 10**6, 1)
    messages: Any = (None,)
    broken = siblings(*(replace(one, messages=messages) for one in pair().rollouts))
    with pytest.raises(AttributeError):
        run(builder.build(broken))


def use_chat(chat: Chat, group: Group) -> Callable[[int], list[str]]:
    """All that a run does with a chat, as texts."""

    def use(number: int) -> list[str]:
        words = f"booking b{number} Łódź 😀 <tool_call> city {number * 7919}"
        prompt = chat.encode_prompt([*OPENING, {"role": "user", "content": words}], ())
        reply, _ = chat.encode_reply(({"role": "tool", "content": words},))
        ids = chat.encode_text(words)
        literals = find_literals(group, chat)
        return [
            repr((prompt.token_ids.tolist(), prompt.reference_position, reply.tolist(), ids.tolist())),
            repr([array.tolist() for array in (chat.decode_with_spans(ids)[1], chat.parse_turn(ids)[1])]),
            repr((chat.parse_turn(ids)[0], chat.roundtrips(ids), chat.turn_text(ids), literals.placeholders)),
            repr([tokens_outside_literals(one, literals, chat).tolist() for one in group.rollouts]),
            repr(build_traces(group.rollouts, literals, chat)),
        ]

    return use


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 1000)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(policy.build_lab_chat, id="lab"),
        pytest.param(lambda: subword_chats.chat("fallback"), id="fallback"),
        pytest.param(lambda: chats.chat("plain"), id="bytes"),
    ],
)
def test_a_chat_gives_the_same_in_many_threads(build: Callable[[], Chat], often_switched: None) -> None:
    chat = build()
    use = use_chat(chat, pair(chat))
    numbers = list(range(5 * NUM_THREADS))
    serial = [use(number) for number in numbers]
    barrier = threading.Barrier(NUM_THREADS)

    def use_many(first: int) -> list[list[str]]:
        barrier.wait(10)
        return [use(number) for number in numbers[first::NUM_THREADS]]

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        results = list(threads.map(use_many, range(NUM_THREADS)))
    assert [results[number % NUM_THREADS][number // NUM_THREADS] for number in numbers] == serial


def test_a_chat_leaves_its_tokenizer_without_padding_and_truncation() -> None:
    """A tokenizer that has either is changed at its first call; to change it while others use it is an error."""
    tokenizer = policy.build_lab_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=4)
    chat = Chat(tokenizer, "folder")
    assert tokenizer.backend_tokenizer.truncation is None
    assert tokenizer.backend_tokenizer.padding is None
    assert len(chat.encode_text("booking city oslo seat basic cabin")) == 6
