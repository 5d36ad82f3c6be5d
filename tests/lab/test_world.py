"""The world: its verifier knows, its splits share words and nothing else, its tools say what is wrong."""

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sgcd.lab import policy, words
from sgcd.lab.demonstrate import NOISY, PERFECT, Script, encode_demonstration, play_script, sft_loss_weights
from sgcd.lab.settings import LabSettings
from sgcd.lab.tasks import build_lab_task_suite, generate_tasks, task_structure
from sgcd.lab.warm_start_checks import SCRIPTS, constant_decisions, play_scripts, success_over_tasks
from sgcd.lab.world import Airline, Booking, Request, is_allowed
from sgcd.records import Call, ParsedTurn, Task, TokenKind

SPLITS = ("train", "dev", "test")
ROW = Booking("mia", "b12", "silver", "basic", "no", "delayed", "rome")


def play(task: Task, *texts_or_calls: str | Call) -> bool:
    async def run() -> bool:
        world = Airline()
        await world.open(task, 0)
        for one in texts_or_calls:
            await world.reply(
                ParsedTurn("", one if isinstance(one, str) else "", () if isinstance(one, str) else (one,))
            )
        return (await world.verify()).success

    return asyncio.run(run())


def task_for(request: Request, row: Booking = ROW) -> Task:
    other = replace(row, name="zoe", booking="b40")
    rows = [{f: getattr(r, f) for f in Booking.__slots__} for r in (row, other)]
    return Task(
        "t",
        "action",
        {"rows": rows, "requests": [{"intent": request.intent, "value": request.value}], "said": ["hello"]},
    )


@pytest.mark.parametrize(
    ("request_", "row", "expected"),
    [
        (Request("cancel"), ROW, False),
        (Request("cancel"), replace(ROW, insured="yes"), True),
        (Request("change", "monday"), ROW, False),
        (Request("change", "monday"), replace(ROW, cabin="economy"), True),
        (Request("upgrade", "business"), ROW, True),
        (Request("upgrade", "business"), replace(ROW, tier="regular"), False),
        (Request("bags", "two"), ROW, True),
        (Request("bags", "three"), ROW, False),
        (Request("voucher"), ROW, True),
        (Request("voucher"), replace(ROW, status="punctual"), False),
        (Request("pet"), ROW, False),
    ],
)
def test_the_written_policy(request_: Request, row: Booking, expected: bool) -> None:
    assert is_allowed(request_, row) is expected


def test_the_verdict_looks_at_the_final_state_and_at_what_was_told() -> None:
    add = Call("add_bags", {"booking": "b12", "bags": "two"})
    assert play(task_for(Request("bags", "two")), add, words.CONFIRMATION)
    assert not play(task_for(Request("bags", "two")), words.CONFIRMATION)
    assert not play(
        task_for(Request("bags", "two")), Call("add_bags", {"booking": "b40", "bags": "two"}), words.CONFIRMATION
    )
    assert not play(task_for(Request("bags", "two")), add, Call("transfer_to_human", {}), words.CONFIRMATION)
    assert play(task_for(Request("cancel")), words.REFUSAL)
    assert not play(task_for(Request("cancel")), words.CONFIRMATION)
    assert play(task_for(Request("ask_city")), "your city is rome thank you")
    assert not play(task_for(Request("ask_city")), "your city is romeo thank you")
    assert play(task_for(Request("lost")), Call("transfer_to_human", {}), words.HANDOVER)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (Call("fly", {}), "error : unknown tool fly"),
        (Call("get_booking", {}), "error : get_booking needs booking"),
        (Call("find_user", {"name": "mia", "day": "monday"}), "error : find_user takes no day"),
        (Call("find_user", {"name": "leo"}), "error : no such customer"),
        (Call("get_flight", {"booking": "b13"}), "error : no such booking"),
        (Call("upgrade_cabin", {"booking": "b12", "cabin": "monday"}), "error : wrong value for cabin"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_answered(call: Call, answer: str) -> None:
    async def run() -> tuple[str, tuple[bool, ...]]:
        world = Airline()
        await world.open(task_for(Request("cancel")), 0)
        reply = await world.reply(ParsedTurn("", "", (call,)))
        return reply.messages[0]["content"], reply.call_errors

    assert asyncio.run(run()) == (answer, (True,))


@pytest.mark.parametrize("horizon", [1, 2])
def test_splits_are_disjoint_in_records_ids_and_structure(horizon: int) -> None:
    splits = {split: generate_tasks(split, horizon) for split in SPLITS}
    for kind in (
        lambda task: {tuple(row.values()) for row in task.row["rows"]},
        lambda task: {(row["name"], row["booking"]) for row in task.row["rows"]},
        lambda task: set(task_structure(task)),
    ):
        found = [set().union(*(kind(task) for task in tasks)) for tasks in splits.values()]
        assert all(found) and not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])


def words_of(tasks: tuple[Task, ...]) -> set[str]:
    """All that a careful and a noisy agent would read and write."""
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for task in tasks:
        for care in (PERFECT, NOISY):
            played = asyncio.run(play_script(task, Script(task, care, rng)))
            texts = [
                *played.texts,
                *(m["content"] for m in (*played.opening.messages, *(m for r in played.replies for m in r))),
            ]
            seen |= {word for text in texts for word in text.split()}
    return seen


@pytest.mark.slow
def test_every_word_of_dev_and_test_occurs_in_train() -> None:
    train = words_of(generate_tasks("train"))
    assert words_of(generate_tasks("dev")) | words_of(generate_tasks("test")) <= train
    assert train <= set(words.build_vocabulary())


def test_the_first_tasks_of_a_split_have_the_shares_of_the_whole() -> None:
    first = Counter(task.category for task in generate_tasks("dev")[:40])
    assert first == {"action": 12, "information": 10, "transfer": 6, "no_action": 12}


def test_a_script_that_always_acts_or_always_refuses_scores_below_the_demonstrator() -> None:
    tasks = generate_tasks("dev")[:200]
    success = {name: asyncio.run(play_scripts(tasks, 2, name)) for name in SCRIPTS}
    overall = {name: success_over_tasks(tasks, by_category) for name, by_category in success.items()}
    assert overall["no error"] == 1.0
    assert max(overall["always acts"], overall["always refuses"]) < overall["demonstrator"] - 0.03
    assert success["always acts"]["no_action"] < 0.2 and success["always refuses"]["action"] == 0.0


def test_a_constant_decision_solves_one_kind_of_request_for_a_change_and_leaves_the_others() -> None:
    tasks = generate_tasks("dev")[:40]
    start = {"action": 0.5, "information": 0.2, "transfer": 0.4, "no_action": 0.7}
    expected = (12 + 10 * 0.2 + 6 * 0.4) / 40
    assert constant_decisions(tasks, start) == pytest.approx({"always acts": expected, "always refuses": expected})


@pytest.mark.slow
@pytest.mark.parametrize(("chatty", "horizon"), [("no", 1), ("own", 1), ("shared", 2), ("no", 4)])
def test_a_script_without_errors_solves_every_task_and_renders_to_its_ids(chatty: str, horizon: int) -> None:
    chat = policy.build_lab_chat()
    settings = LabSettings.model_validate({"name": "lab", "chatty": chatty, "horizon": horizon})
    rng = np.random.default_rng(0)
    for task in build_lab_task_suite(settings).splits["dev"][:60]:
        rollout = encode_demonstration(
            asyncio.run(play_script(task, Script(task, PERFECT, rng, words.thought_pools(chatty, settings.thinking)))),
            chat,
        )
        assert rollout.success, (task, chat.decode(rollout.response))
        whole = np.concatenate([rollout.prompt, rollout.response])
        assert chat.encode_conversation(rollout.messages, rollout.tools).tolist() == whole.tolist()
        if chatty != "no":
            per_turn = [(rollout.token_kinds[t.start : t.stop] == TokenKind.THINKING).sum() for t in rollout.turns]
            assert set(per_turn) == {settings.thinking + 2}


def test_shared_thoughts_are_words_that_decide_elsewhere_and_own_thoughts_are_not() -> None:
    deciding = {
        *words.TOOLS,
        *words.TIERS,
        *words.CABINS,
        *words.INSURED,
        *words.STATUSES,
        *words.DAYS,
        *words.COUNTS,
        *words.CITIES,
    }
    deciding |= {*words.CUSTOMER_NAMES, *words.BOOKING_IDS}
    assert all(len(set(four)) == 4 and set(four) <= deciding for four in words.shared_thought_pools())
    assert not {word for four in words.OWN_THOUGHT_POOLS for word in four} & deciding


def test_the_supervised_loss_counts_arguments_six_times_and_tools_twice() -> None:
    chat = policy.build_lab_chat()
    task = task_for(Request("change", "monday"), replace(ROW, cabin="economy"))
    rollout = encode_demonstration(
        asyncio.run(play_script(task, Script(task, PERFECT, np.random.default_rng(0)))), chat
    )
    turn = rollout.turns[2]
    text = chat.decode(rollout.response[turn.start : turn.stop])
    assert text == "one moment please <call> change_day booking b12 day monday </call> <|end|>"
    weights = sft_loss_weights(rollout, chat)
    assert list(weights[turn.start : turn.stop]) == [1, 1, 1, 1, 2, 1, 6, 1, 6, 1, 1]
    assert all(w == 0 for w, own in zip(weights, rollout.response_mask, strict=True) if not own)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [("t00a t01d", True), ("t00a", False), ("t00a t00a", False), ("", False), ("t00a t01d t02a", False)],
)
def test_in_a_chatty_world_a_turn_that_thinks_otherwise_fails(thinking: str, expected: bool) -> None:
    async def run() -> bool:
        world = Airline(words.thought_pools("own", 2))
        await world.open(task_for(Request("cancel")), 0)
        await world.reply(ParsedTurn(thinking, words.REFUSAL, ()))
        return (await world.verify()).success

    assert asyncio.run(run()) is expected
