"""Rows of other tools' files become rollouts with a reward, a task and messages as in OpenAI's chat data."""

from typing import Any

import pytest

from helpers.recorded import BOOK, answered, asks, booking, call, says
from sgcd.errors import DataError
from sgcd.recorded.formats import is_failed_call, read_row

NATIVE = {"function": {"name": "book", "arguments": {"seats": 2}}}
TALK = [asks("two seats"), call("book", seats=2), answered("booked"), says("done")]
POLICY = {"info": {"environment_info": {"policy": "You book.", "tool_defs": [BOOK]}}}


def roles(row: dict[str, Any], shared: dict[str, Any] | None = None) -> list[str]:
    return [message["role"] for message in read_row(row, shared).messages]


def test_chat_data_with_a_reward():
    read = read_row(booking(2, 0.5, category="action", note="left alone"))
    assert (read.task, read.reward, len(read.messages), read.tools) == ("t1", 0.5, 5, [BOOK])
    assert read_row({"messages": TALK, "score": 1}).reward == 1
    assert read_row({"messages": TALK, "success": True}).reward == 1


def test_equal_prompts_are_siblings_where_no_field_names_the_task():
    first, second = (read_row({"messages": [*TALK, says(text)], "reward": 1}) for text in "ab")
    other = read_row({"messages": [asks("three seats"), *TALK[1:]], "reward": 1})
    assert first.key == second.key != other.key
    assert first.task.startswith("prompt ")


def test_another_models_rows_are_no_siblings():
    assert read_row(booking(2, 1, model="a")).key != read_row(booking(2, 1, model="b")).key


def test_tau_bench():
    read = read_row({"task_id": 3, "trial": 1, "reward": 1.0, "info": {"task": {}}, "traj": TALK})
    assert (read.task, read.reward, read.messages) == ("3", 1.0, TALK)


def test_tau2_bench_has_its_policy_and_tools_once_and_leaves_out_what_a_user_calls():
    native = [{"id": "1", "name": "book", "arguments": {"seats": 2}}]
    failed = {"role": "tool", "content": "no", "requestor": "assistant", "error": True}
    row = {
        "id": "x",
        "task_id": "7",
        "termination_reason": "max_steps",
        "reward_info": {"reward": 0.0},
        "messages": [
            {"role": "assistant", "content": "Hi!"},
            {"role": "user", "content": "two seats", "tool_calls": [{"name": "phone", "arguments": {}}]},
            {"role": "tool", "content": "rings", "requestor": "user"},
            {"role": "assistant", "content": None, "tool_calls": native},
            {"role": "tool", "tool_messages": [failed]},
        ],
    }
    read = read_row(row, POLICY)
    assert roles(row, POLICY) == ["system", "assistant", "user", "assistant", "tool"]
    assert (read.messages[0]["content"], read.tools, read.end) == ("You book.", [BOOK], "turn_limit")
    assert read.messages[2]["tool_calls"] is None
    assert read.messages[3]["tool_calls"] == [NATIVE]
    assert is_failed_call(read.messages[4])


@pytest.mark.parametrize(("value", "reward"), [("C", 1.0), ("I", 0.0), ("P", 0.5), (0.25, 0.25)])
def test_inspect(value: Any, reward: float):
    calls = [{"id": "1", "function": "book", "arguments": {"seats": 2}}]
    thought = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "well"}]
    messages = [asks("two seats"), {"role": "assistant", "content": thought, "tool_calls": calls}, answered("booked")]
    row = {"id": "s1", "epoch": 1, "messages": messages, "scores": {"match": {"value": value}}}
    read = read_row(row, {"eval": {"task": "seats", "model": "m"}})
    assert (read.task, read.reward) == ("seats s1", reward)
    assert {**read.messages[1], "role": ""} == {
        "role": "", "content": "well", "reasoning_content": "hm", "tool_calls": [NATIVE]
    }  # fmt: skip


def test_verifiers_whose_calls_may_be_json_texts():
    text_call = '{"id": "1", "function": {"name": "book", "arguments": "{}"}, "type": "function"}'
    completion = [{"role": "assistant", "content": "", "tool_calls": [text_call]}, answered("booked")]
    row = {"example_id": 4, "task": "default", "prompt": [asks("two")], "completion": completion, "reward": 1.0}
    read = read_row(row)
    assert (read.task, read.messages[1]["tool_calls"][0]["function"]["name"]) == ("4", "book")


def test_trl_sums_its_rewards_and_tells_steps_apart():
    row = {"step": 2, "prompt": "two?", "completion": "four", "right": 1.0, "short": 0.5, "advantage": 0.1}
    read = read_row(row)
    assert (read.reward, [message["content"] for message in read.messages]) == (1.5, ["two?", "four"])
    assert read.key != read_row({**row, "step": 3}).key


def test_verl():
    read = read_row({"input": "two?", "output": "four", "gts": "4", "score": 1.0, "step": 1})
    assert (read.reward, [message["role"] for message in read.messages]) == (1.0, ["user", "assistant"])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (5, "expected an object with messages and a reward, got 5"),
        ({"text": "a"}, "messages: missing; .* its fields are text"),
        ({"messages": TALK}, "reward: expected a finite number, got nothing"),
        ({"messages": TALK, "reward": "good"}, 'reward: expected a finite number, got "good"'),
        ({"messages": TALK, "reward": float("nan")}, "reward: expected a finite number, got NaN"),
        ({"messages": [], "reward": 1}, r"messages: expected a list of messages, got \[\]"),
        ({"messages": TALK, "reward_info": None}, "reward_info: expected an object with a reward, got null"),
        ({"messages": TALK, "scores": {"m": {"value": "X"}}}, r"scores\.m: expected a number or one of C, P, I, N"),
        ({"step": 1, "prompt": "a", "completion": "b", "advantage": 0}, "reward: missing; expected a column"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(row: Any, complaint: str):
    with pytest.raises(DataError, match=complaint):
        read_row(row)


def test_a_failed_call_is_known_by_its_flag_or_by_its_first_word():
    assert is_failed_call(answered("Error: no such seat"))
    assert is_failed_call({**answered("no"), "is_error": True})
    assert not is_failed_call({**answered("Error codes are in the manual"), "error": False})
    assert not is_failed_call(answered("booked without error"))
