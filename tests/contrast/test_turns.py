"""No reference opens or closes a chat turn, whatever a tool said or a writer wrote: from trace to teacher's ids."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import subword_chats
from helpers.group import DONE, LAB, SORRY, Says, call, rollout, run, siblings
from sgcd.chat import Chat
from sgcd.contrast.insert import build_teacher_input_ids, encode_reference
from sgcd.contrast.leakage.chat_marks import find_chat_marks
from sgcd.contrast.reference import build_reference
from sgcd.contrast.trace import render_trace
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.records import Group

CHATS = {"words": LAB, "bytes": subword_chats.chat(), "fallback": subword_chats.chat("fallback")}
TEXTUAL = [
    "<|im_end|>",
    "<|im_start|>system",
    "[/INST]",
    "</s>",
    "<end_of_turn>",
    "</think>",
    "<tool_call>",
    "\nHuman: hi",
]
OWN = ["<|end|>", "<|assistant|>", "<call>", "</call>", "<think>", "<pad>"]


def told(chat: Chat, said: str) -> Group:
    """Siblings to whom a tool said it."""
    ends = [[call("find_user", "name", "mia"), end] for end in (DONE, SORRY)]
    group = siblings(*(rollout(words, ["x"], words is ends[0], chat=chat) for words in ends))
    return replace(
        group,
        rollouts=tuple(
            replace(r, messages=tuple({**m, "content": said} if m["role"] == "tool" else m for m in r.messages))
            for r in group.rollouts
        ),
    )


def special(chat: Chat, ids: np.ndarray) -> list[int]:
    known = chat.tokenizer.all_special_ids
    return [int(one) for one in ids if int(one) in known and int(one) != chat.tokenizer.unk_token_id]


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("mark", [*TEXTUAL, *OWN])
def test_what_a_tool_says_reaches_no_writer_as_a_mark(kind: str, mark: str) -> None:
    writer = Says(["look first"])
    run(build_reference(told(CHATS[kind], f"ok {mark} and"), CHATS[kind], writer, budget=10**6))
    assert all(
        find_chat_marks(render_trace(trace)) == [] and mark not in render_trace(trace) for trace in writer.traces
    )


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("mark", [*TEXTUAL, *OWN[:-1]])
def test_a_reference_with_a_mark_is_refused_and_asked_for_again(kind: str, mark: str) -> None:
    writer = Says([f"look first {mark} then act", "look first"])
    found = run(build_reference(told(CHATS[kind], "ok"), CHATS[kind], writer, budget=10**6))
    assert found.reference is not None and (found.reference.text, writer.num_calls) == ("look first", 2)
    found = run(build_reference(told(CHATS[kind], "ok"), CHATS[kind], Says([mark]), budget=10**6))
    assert found.reference is None and found.cause.startswith("chat marks: it carries ")


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.sampled_from([*TEXTUAL, *OWN, "<", "|", ">", " ", "\n", "end", "look"]), max_size=8))
@pytest.mark.parametrize("kind", CHATS)
def test_a_teachers_row_has_the_very_turns_of_the_students(kind: str, pieces: list[str]) -> None:
    """Even if nobody looked at the text."""
    chat = CHATS[kind]
    one = told(chat, "ok").rollouts[0]
    ids = encode_reference(chat, "".join(pieces))
    assert special(chat, ids) == []
    student = np.concatenate([one.prompt, one.response])
    assert special(chat, build_teacher_input_ids(one, ids)) == special(chat, student)


def test_the_built_in_writer_passes_no_mark_on() -> None:
    ends = [[call("find_user", "name", "<|end|>"), call("<|assistant|>"), DONE], [call("<|end|>"), SORRY]]
    group = siblings(*(rollout(words, ["<|end|> : <call>"] * 2, words is ends[0]) for words in ends))
    found = run(build_reference(group, LAB, BuiltInWriter(), budget=10**6))
    assert found.reference is not None
    assert special(LAB, encode_reference(LAB, found.reference.text)) == []


@pytest.mark.parametrize(
    "name", ["gold_actions", "Gold-Actions", "g\u200bold_actions", "&#103;old_actions", "goldActions"]
)
def test_names_that_only_a_verifier_knows_are_a_leak_in_any_form(name: str) -> None:
    found = run(build_reference(told(LAB, "ok"), LAB, Says([f"look at {name} first"]), budget=10**6))
    assert found.cause == "leak: it names gold_actions, which only a verifier knows"


def test_a_cause_tells_no_literal() -> None:
    group = told(LAB, "ok")
    group = replace(group, rollouts=tuple(replace(r, private=("hunter2",)) for r in group.rollouts))
    found = run(build_reference(group, LAB, Says(["<|hunter2|>"]), budget=10**6))
    assert found.cause == "chat marks: it carries < |hidden|>"
