"""Conversations as tokens, their loss and their batches; a stopped run ends with the bytes of one that was not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from helpers.chats import FAMILIES, TOOLS, call, chat
from helpers.tiny_policy import CHAT, model, rollout
from sgcd.chat import Chat
from sgcd.errors import DataError
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.supervised.conversations import read_conversations
from sgcd.learn.supervised.data import BatchOrder
from sgcd.learn.supervised.encode import Examples, encode_conversations
from sgcd.learn.supervised.trainer import accumulate_supervised, padding_share
from sgcd.records import Call, Message, ParsedTurn, Rollout

CALL = {"type": "function", "function": {"name": "find", "arguments": '{"who": "Mia", "count": 3}'}}
ASKED: list[Message] = [
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "I am Zoë."}]},
]
TALK: list[Message] = [
    *ASKED,
    {"role": "assistant", "content": None, "tool_calls": [{"id": "a", **CALL}]},
    {"role": "tool", "tool_call_id": "a", "content": "found 1 <|im_end|>"},
    {"role": "assistant", "content": "It is there.", "reasoning_content": "I look"},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "what?", "weight": 0},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Good bye"},
    {"role": "user", "content": "bye"},
]


def encoded(here: Chat, *talks: Any, window: int = 1000, folder: Path) -> Examples:
    file = folder / "talks.jsonl"
    file.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    return encode_conversations(read_conversations(file), here, window)


def talk(*messages: Message, tools: Sequence[Any] = TOOLS) -> dict[str, Any]:
    return {"messages": list(messages), "tools": list(tools)}


def stretches(here: Chat, one: Rollout) -> list[str]:
    """The learned stretches of the response as text."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], one.response_mask, [0]])))
    return [here.decode(one.response[start:stop]) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_learned_is_what_the_template_renders_of_the_assistants_turns(family: str, tmp_path: Path) -> None:
    here = chat(family)
    examples = encoded(here, talk(*TALK), folder=tmp_path)
    assert examples.left_out == {}
    [one] = examples.rollouts
    ids = np.concatenate([one.prompt, one.response])
    assert ids.tolist() == here.encode_conversation(one.messages, one.tools).tolist()
    opened = family == "opened"  # this template has opened the thinking, which a turn without any only closes
    end = here.decode(np.array([here.end_id]))
    assert stretches(here, one) == [
        ("</think>\n\n" if opened else "") + call(here, who="Mia", count=3) + end,
        ("" if opened else "<think>\n") + "I look\n</think>\n\nIt is there." + end,
        ("</think>\n\n" if opened else "") + "Good bye" + end,
    ]
    prompt = here.decode(one.prompt)
    assert "Be kind." in prompt
    assert "I am Zoë." in prompt
    assert prompt.endswith(here.decode(here.encode_reply([{"role": "user", "content": "x"}])[0]).partition("x")[2][-8:])


@pytest.mark.parametrize("family", [*FAMILIES, "lab"])
@pytest.mark.parametrize("thinking", ["", "i see"])
@pytest.mark.parametrize("text", ["", "one moment please"])
@pytest.mark.parametrize("num_calls", [0, 1, 2])
def test_a_turn_in_parts_is_written_as_it_is_read(family: str, thinking: str, text: str, num_calls: int) -> None:
    here, name, argument = (CHAT, "find_user", "name") if family == "lab" else (chat(family), "find", "who")
    turn = ParsedTurn(thinking, text, tuple(Call(name, {argument: who}) for who in ("mia", "max")[:num_calls]))
    if family == "lab" and thinking:
        turn = ParsedTurn("please", text, turn.calls)  # a word that its tokenizer knows
    ids = here.encode_turn(here.write_turn(turn))
    assert here.parse_turn(ids, TOOLS)[0] == turn
    assert here.has_end_token(ids)
    assert here.roundtrips(ids)


@pytest.mark.parametrize("arguments", ['{"who": "Mia", "count": 3}', {"who": "Mia", "count": 3}])
def test_a_template_that_knows_no_calls_renders_those_of_a_servers_clients_as_they_were_learned(
    arguments: Any, tmp_path: Path
) -> None:
    here = chat("pairs")
    called = {"type": "function", "function": {"name": "find", "arguments": arguments}}
    talks = talk(
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "I look.", "tool_calls": [called, called]},
        {"role": "tool", "content": "found"},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": "found"},
        {"role": "assistant", "content": "It is there.", "reasoning_content": "I know"},
    )
    [learned] = encoded(here, talks, folder=tmp_path).rollouts
    here.save(tmp_path)
    tokenizer: Any = AutoTokenizer
    ids = tokenizer.from_pretrained(tmp_path).apply_chat_template(talks["messages"], tools=TOOLS, return_dict=False)
    assert ids == [*learned.prompt.tolist(), *learned.response.tolist()]


def test_a_turn_with_marks_in_its_text_is_taken_as_it_is(tmp_path: Path) -> None:
    here = chat("plain")
    text = call(here, who="Mia") + "\nwait"
    [one] = encoded(here, talk(*ASKED, {"role": "assistant", "content": text}), folder=tmp_path).rollouts
    assert stretches(here, one) == [text + "<|im_end|>"]
    assert one.turns[0].calls == (Call("find", {"who": "Mia"}),)


def test_what_the_assistant_says_before_any_user_is_only_read(tmp_path: Path) -> None:
    here = chat("forgetful")
    greeting: list[Message] = [{"role": "assistant", "content": "How can I help?"}, ASKED[1]]
    [one] = encoded(here, talk(*greeting, {"role": "assistant", "content": "Fine."}), folder=tmp_path).rollouts
    assert "How can I help?" in here.decode(one.prompt)
    assert stretches(here, one) == ["Fine.<|im_end|>"]


ANSWER: Message = {"role": "assistant", "content": "Fine."}


@pytest.mark.parametrize(
    ("messages", "tools", "kind"),
    [
        (ASKED, TOOLS, "no assistant turn"),
        ([ANSWER, {**ANSWER, "weight": 0}], TOOLS, "no message stands before the first assistant turn"),
        ([*ASKED, {**ANSWER, "weight": 0}], TOOLS, "no assistant turn has a weight"),
        ([*ASKED, ANSWER, ANSWER], TOOLS, "two assistant turns in a row"),
        ([*ASKED, {**ANSWER, "content": "Fi<|im_end|>ne"}], TOOLS, "a turn holds the token that ends a turn"),
        ([*ASKED, {**ANSWER, "content": "<tool_call>find Mia"}], TOOLS, "a call cannot be read"),
        ([*ASKED, {**ANSWER, "tool_calls": [CALL]}], (), "an unknown tool is called"),
        (
            [*ASKED, {**ANSWER, "tool_calls": [{"function": {"name": "find", "arguments": "[1]"}}]}],
            TOOLS,
            "a call's arguments are no JSON object",
        ),
        (
            [*ASKED, {**ANSWER, "content": "</tool_call><tool_call>", "tool_calls": [CALL]}],
            TOOLS,
            "a call cannot be read",
        ),
        ([{**ANSWER, "tool_calls": [CALL]}, *ASKED, ANSWER], TOOLS, "a call stands where the policy has no turn"),
        ([*ASKED, {**ANSWER, "content": "F" * 999}], TOOLS, "longer than 900 tokens"),
    ],
)
def test_what_cannot_be_learned_is_left_out_and_counted_by_kind(
    messages: list[Message], tools: Any, kind: str, tmp_path: Path
) -> None:
    good = talk(*ASKED, ANSWER)
    examples = encoded(
        chat("plain"), talk(*messages, tools=tools), good, talk(*messages, tools=tools), window=900, folder=tmp_path
    )
    assert examples.left_out == {kind: 2}
    assert "talks.jsonl, line 1" in examples.first_left_out[kind]
    assert len(examples.rollouts) == 1
    [line] = examples.describe_left_out()
    assert line.startswith(f"left out, {kind}: 2 (the first: ")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"messages": [', r"line 2: not JSON \(.*\); expected one object"),
        ("[]", "line 2: the line: "),
        ('{"messages": []}', "line 2: messages: "),
        ('{"messages": [{"role": "robot", "content": ""}]}', "line 2: messages.0.role: "),
        ('{"messages": [{"role": "user", "content": 3}]}', "line 2: messages.0.content: "),
        ('{"messages": [{"role": "user", "content": [{"image_url": "x"}]}]}', "a part of it is no text"),
        ('{"messages": [{"role": "user"}], "tools": [{"name": "find"}]}', "line 2: tools.0.function: "),
    ],
)
def test_a_line_that_is_no_conversation_is_refused_with_file_and_line(
    line: str, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps(talk(*ASKED, ANSWER)) + "\n" + line + "\n")
    with pytest.raises(DataError, match=f"talks.jsonl, .*{complaint}"):
        list(read_conversations(file))


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_loss_and_gradient_are_those_of_plain_torch_over_the_assistants_tokens_alone() -> None:
    policy = model(torch.float64)
    batch = [rollout("xx..xxx", "a"), rollout(".x", "b", prompt=6), rollout("xxx.", "c", prompt=1)]
    gradient = accumulate_supervised(policy, batch, ForwardConfig(micro_batch_tokens=12, logits_bytes=10**5))
    found = [parameter.grad.clone() for parameter in policy.parameters()]
    policy.zero_grad()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for one in batch:
        ids = torch.tensor(np.concatenate([one.prompt, one.response]).astype(np.int64))
        logprobs = policy(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        for position, learned in enumerate(one.response_mask, start=len(one.prompt)):
            if learned:
                total, count = total - logprobs[position - 1, ids[position]], count + 1
    (total / count).backward()
    assert count == gradient.size.num_tokens == 9
    assert gradient.loss == pytest.approx(float(total.detach() / count), abs=1e-12)
    for ours, parameter in zip(found, policy.parameters(), strict=True):
        assert torch.allclose(ours, parameter.grad, atol=1e-12)


# -- batches ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 99), min_size=1, max_size=60), batch_size=st.integers(1, 9), seed=st.integers(0, 9)
)
def test_an_epoch_has_each_conversation_once_and_its_order_is_its_seeds(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    order = BatchOrder(lengths, batch_size, seed)
    count = order.steps_per_epoch
    for epoch in (1, 2):
        batches = [order.batch(step) for step in range((epoch - 1) * count + 1, epoch * count + 1)]
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert sorted(map(len, batches))[1:] == [batch_size] * (count - 1)
        assert {order.epoch_of(step) for step in range((epoch - 1) * count + 1, epoch * count + 1)} == {epoch}
    assert BatchOrder(lengths, batch_size, seed).epoch_batches(2) == order.epoch_batches(2)


def test_batches_of_similar_lengths_have_less_padding() -> None:
    drawn = np.random.default_rng(0).integers(5, 60, 128)
    rollouts = [rollout("x" * int(length), f"t{number}") for number, length in enumerate(drawn)]
    order = BatchOrder([len(one.prompt) + len(one.response) for one in rollouts], 8, 0)
    policy, config = model(), ForwardConfig(micro_batch_tokens=10**4)
    padding = [padding_share(policy, [rollouts[i] for i in batch], config) for batch in order.epoch_batches(1)]
    as_they_come = [padding_share(policy, rollouts[start : start + 8], config) for start in range(0, 128, 8)]
    assert np.mean(padding) < 0.1 < 0.3 < np.mean(as_they_come)
    assert padding_share(policy, rollouts[:8], ForwardConfig(micro_batch_tokens=10**4, share=True)) == 0
