"""Whole conversations on templates that behave as those of Qwen, Llama, Gemma and Hermes do."""

from functools import cache
from json import dumps
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import chats
from helpers.chats import OPENING, TOOLS, call, chat, converse
from helpers.conversations import (
    ASKS,
    ONE,
    REPLIES,
    TWO,
    WORDS,
    opened,
    shut,
    thirty_turns,
)
from sgcd.chat import Chat
from sgcd.chat.template import collect_marks
from sgcd.chat.turn_parser import kinds_of_tokens
from sgcd.errors import TemplateError
from sgcd.records import Call, Message, TokenKind

T, C, A = TokenKind.THINKING, TokenKind.CALL, TokenKind.ANSWER
EVERY = pytest.mark.parametrize("family", chats.FAMILIES)


@cache
def deployed(family: str) -> Any:
    """The policy's tokenizer as anyone would load it."""
    from transformers import AutoTokenizer

    folder = Path(mkdtemp())
    chat(family).save(folder)
    return AutoTokenizer.from_pretrained(folder)


def rendered(family: str, messages: list[Message]) -> tuple[str, list[int]]:
    told: dict[str, Any] = {"tools": list(TOOLS)}
    text = deployed(family).apply_chat_template(messages, tokenize=False, **told)
    return text, deployed(family).apply_chat_template(messages, tokenize=True, return_dict=False, **told)


@EVERY
def test_thirty_turns_come_back_to_the_token(family: str) -> None:
    turns, replies = thirty_turns(chat(family))
    played = converse(chat(family), [chat(family).encode_policy_text(turn) for turn in turns], replies)
    text, ids = rendered(family, played.messages)
    assert text == chat(family).decode(np.array(played.ids, np.int32))
    # A turn that begins with a line break grows together with the opening's own, where the opening has one.
    grown = [index for index, turn in enumerate(turns) if turn.startswith("\n")]
    assert [index for index, same in enumerate(played.exact) if not same] == grown
    assert bool(grown) == opened(chat(family))
    assert (ids == played.ids) == (not grown)


@EVERY
def test_thirty_turns_are_read_as_they_were_meant(family: str) -> None:
    turns, replies = thirty_turns(chat(family))
    said = converse(chat(family), [chat(family).encode_policy_text(turn) for turn in turns], replies).parsed_turns
    looks, both, answers, broken, silent, last = said[:6]
    assert (looks.thinking, looks.calls, looks.malformed) == ("I look", (Call("find", {"who": "Mia"}),), "")
    assert (both.thinking, both.malformed) == ("two of them, 東京", "")
    assert both.calls == (Call("find", {"who": "Zoë"}), Call("find", {"who": "😀", "count": 2}))
    assert (answers.thinking, answers.text, answers.calls) == ("", "It is là.", ())
    assert broken.calls == () and broken.malformed
    assert silent.malformed == ("<think> is never closed" if opened(chat(family)) else "")
    assert last.text == "You are booked."


@EVERY
def test_other_ids_for_the_same_text_are_counted_and_the_text_comes_back(family: str) -> None:
    here = chat(family)
    letters = np.concatenate([here.encode_policy_text(letter) for letter in shut(here, "so") + "booked"])
    played = converse(here, [letters, here.encode_policy_text(shut(here, "so") + "booked")], [ASKS])
    assert played.exact == [False, True]
    text, ids = rendered(family, played.messages)
    assert text == here.decode(np.array(played.ids, np.int32)) and ids != played.ids
    assert played.parsed_turns[0] == played.parsed_turns[1]


@EVERY
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_whatever_is_sampled_and_heard_the_text_comes_back(family: str, data: st.DataObject) -> None:
    here = chat(family)
    count = data.draw(st.integers(1, 4))
    stray = st.lists(st.integers(0, here.vocab_size - 1), max_size=6).map(lambda ids: np.array(ids, np.int32))
    drawn = [data.draw(st.one_of(WORDS.map(here.encode_policy_text), stray)) for _ in range(count)]
    turns = [turn[~np.isin(turn, here.end_ids)].astype(np.int32) for turn in drawn]
    replies = [data.draw(REPLIES) for _ in range(count - 1)]
    played = converse(here, turns, replies, cut=data.draw(st.booleans()))
    text, ids = rendered(family, played.messages)
    assert text == here.decode(np.array(played.ids, np.int32))
    if all(played.exact):
        assert ids == played.ids
    for said, turn in zip(played.parsed_turns, turns, strict=True):
        assert here.turn_text(turn) == here.decode(turn)
        assert not (said.calls and said.malformed)


@EVERY
@settings(max_examples=60, deadline=None)
@given(text=st.one_of(WORDS, st.text(alphabet="<>|/thinkimend_ol", max_size=30)))
def test_no_word_from_outside_holds_a_mark(family: str, text: str) -> None:
    here = chat(family)
    [message] = here.encode_reply(({"role": "user", "content": text},))[1]
    assert not [mark for mark in here._escape.marks if mark in message["content"]]
    assert message["content"].replace(" ", "") == text.replace(" ", "")
    inside = here.encode_text(text)
    assert not {here.end_id} & set(inside.tolist())


SYSTEM_STARTS = {
    "plain": "<|im_start|>system\n",
    "forgetful": "<|im_start|>system\n",
    "pairs": "<bos><start_of_turn>user\n",
}


@EVERY
def test_a_reference_goes_before_the_end_of_the_task_and_never_behind_a_call_mark(family: str) -> None:
    here = chat(family)
    few_shot: list[Message] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": call(here, who="M")}]
    for messages in (OPENING, OPENING[1:], [*OPENING[:1], *few_shot, *OPENING[1:]]):
        opened = here.encode_prompt(messages, TOOLS)
        assert opened.token_ids[opened.reference_position] == here.end_id
        assert here.decode(opened.token_ids[: opened.reference_position]).endswith("Hello, I am Zoë.")


@pytest.mark.parametrize("family", SYSTEM_STARTS)  # the other templates refuse a conversation without a user
def test_where_no_user_speaks_a_reference_goes_to_the_start_of_the_first_message(family: str) -> None:
    here = chat(family)
    opened = here.encode_prompt(OPENING[:1], TOOLS)
    before, after = opened.token_ids[: opened.reference_position], opened.token_ids[opened.reference_position :]
    assert here.decode(before).endswith(SYSTEM_STARTS[family])
    assert here.decode(after).startswith("Be kind.")


def template_with_example(before: str, after: str) -> str:
    """Shows an example of a call before or after the text of the first message."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        f"{{% if loop.first and tools %}}{before}{{% endif %}}{{{{ m.content }}}}"
        f"{{% if loop.first and tools %}}{after}{{% endif %}}<|im_end|>\n{{% endfor %}}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


EXAMPLE = '{{ tools | tojson }}\n<tool_call>\n{"name": "a"}\n</tool_call>\n'


def test_a_call_mark_at_the_end_of_the_task_moves_the_reference_to_the_start_of_the_first_message() -> None:
    here = chats.build(template_with_example("", "\n" + EXAMPLE), *chats.FAMILIES["plain"])
    opened = here.encode_prompt(OPENING[1:], TOOLS)
    assert here.decode(opened.token_ids[opened.reference_position :]).startswith("Hello, I am Zoë.[{")


def test_a_template_with_call_marks_on_both_sides_of_the_task_is_refused() -> None:
    here = chats.build(template_with_example(EXAMPLE, "\n" + EXAMPLE), *chats.FAMILIES["plain"])
    with pytest.raises(TemplateError, match="writes a mark of a call before the first message"):
        here.encode_prompt(OPENING[1:], TOOLS)


@EVERY
def test_marks_of_calls_pass_in_the_operators_own_words_and_in_no_others(family: str) -> None:
    """A policy copies a broken mark from a broken example."""
    here = chat(family)
    example = call(here, who="M")
    if here.call_format.name == "Llama 3":  # whose calls may be bare
        example = "<|python_tag|>" + example
    mark = example[: example.index(">") + 1]
    asked: list[Message] = [{"role": "user", "content": f"What is {mark}?"}, {"role": "assistant", "content": example}]
    opened = here.encode_prompt([{"role": "system", "content": f"Call so: {example}"}, *asked, *OPENING[1:]], ())
    text = here.decode(opened.token_ids)
    assert text.count(example) == 2
    assert f"What is {mark[0]} {mark[1:]}?" in text
    assert opened.token_ids[opened.reference_position] == here.end_id


def test_a_family_without_a_system_or_tools_is_told_of_both_in_the_first_turn() -> None:
    text = chat("pairs").decode(chat("pairs").encode_prompt(OPENING, TOOLS).token_ids)
    assert text.startswith("<bos><start_of_turn>user\nBe kind.\n\n# Tools")
    assert '"name": "find"' in text and text.endswith("Hello, I am Zoë.<end_of_turn>\n<start_of_turn>model\n")


def test_tools_as_text_show_a_call_of_the_first_tool_in_the_documented_words() -> None:
    properties = {
        "who": {"type": "string"},
        "count": {"type": "integer"},
        "share": {"type": "number"},
        "deep": {"type": "boolean"},
        "size": {"type": "string", "enum": ["s", "m"]},
        "more": {"type": "array"},
        "unnamed": {"type": "string"},
    }
    parameters = {"type": "object", "properties": properties, "required": [*properties][:-1]}
    tool = {"type": "function", "function": {"name": "look", "parameters": parameters}}
    values = {"who": "example", "count": 3, "share": 2.5, "deep": True, "size": "s", "more": []}
    documented = (Path(__file__).parents[1] / "docs/templates.md").read_text(encoding="utf-8")
    shown = documented.split("```text\n")[1].split("\n```")[0]
    shown = shown.replace("{tools}", f"{dumps(tool)}\n{dumps(TOOLS[0])}")
    text = chat("pairs").decode(chat("pairs").encode_prompt(OPENING, (tool, *TOOLS)).token_ids)
    assert shown.replace("{call}", dumps({"name": "look", "arguments": values})) in text


def test_tools_as_text_can_be_worded_by_the_recipe_and_the_words_are_saved(tmp_path: Path) -> None:
    words = 'Tools 😀 "{tools}", called <tool_call>{call}</tool_call>'
    start = chats.tokenizer(*chats.FAMILIES["pairs"])
    start.chat_template = (chats.TEMPLATES / "pairs.jinja").read_text(encoding="utf-8")
    start.save_pretrained(tmp_path / "start")
    here = Chat.load(tmp_path / "start", words)
    example = '<tool_call>{"name": "find", "arguments": {"who": "example"}}</tool_call>'
    expected = f'Be kind.\n\nTools 😀 "{dumps(TOOLS[0])}", called {example}\n\nHello'
    assert expected in here.decode(here.encode_prompt(OPENING, TOOLS).token_ids)
    here.save(tmp_path / "trained")
    assert Chat.load(tmp_path / "trained").template == Chat.load(tmp_path / "trained", words).template == here.template
    with pytest.raises(TemplateError, match="has another one, with which it was trained"):
        Chat.load(tmp_path / "trained", "other words")


def test_answers_of_tools_to_such_a_family_are_one_turn_of_a_user() -> None:
    glue, _ = chat("pairs").encode_reply([*TWO, *ASKS])
    assert chat("pairs").decode(glue) == (
        "\n<start_of_turn>user\n<tool_response>\n found 1\n\n</tool_response>\n"
        "<tool_response>\nŁódź 東京 😀\n</tool_response>\nand now?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_answers_of_tools_are_merged_as_the_template_merges_them() -> None:
    glue, _ = chat("forgetful").encode_reply(TWO)
    assert chat("forgetful").decode(glue) == (
        "\n<|im_start|>user\n<tool_response>\n found 1\n\n</tool_response>"
        "\n<tool_response>\nŁódź 東京 😀\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_the_opening_of_a_turn_begins_is_glue() -> None:
    here = chat("opened")
    glue, _ = here.encode_reply(ONE[:0] + ASKS)
    assert here.decode(glue).endswith("<|im_start|>assistant\n<think>\n")
    ids = here.encode_policy_text("so\n</think>\n\nyes<|im_end|>")
    spelt = [here.decode(ids[i : i + 1]) for i in range(len(ids))]
    kinds = dict(zip(spelt, here.parse_turn(ids)[1].tolist(), strict=True))
    assert (kinds["</think>"], kinds["\n\n"], kinds["<|im_end|>"]) == (T, A, A)
    assert here.parse_turn(ids)[1][0] == T


def test_marks_of_several_tokens_are_read_too() -> None:
    here = chat("pairs")  # its vocabulary has none of them
    ids = here.encode_policy_text("<think>so</think>ok " + call(here, who="Mia"))
    said, kinds = here.parse_turn(np.append(ids, here.end_id).astype(np.int32))
    assert len(ids) > 20
    assert (said.thinking, said.text, said.calls) == ("so", "ok", (Call("find", {"who": "Mia"}),))
    changes = [int(kind) for kind, before in zip(kinds, [0, *kinds[:-1]], strict=True) if kind != before]
    assert changes == [T, A, C]
    assert kinds[-1] == C


def test_a_turn_may_end_with_the_other_token_of_its_family() -> None:
    here = chat("headers")
    other = here.tokenizer.convert_tokens_to_ids("<|eom_id|>")
    assert here.end_ids == (here.end_id, other)
    ids = np.append(here.encode_policy_text("<|python_tag|>" + call(here, who="Mia")), other).astype(np.int32)
    assert here.parse_turn(ids)[0].calls == (Call("find", {"who": "Mia"}),)
    assert here.turn_message(ids, True)["end"] == "<|eom_id|>"
    played = converse(here, [ids, here.encode_policy_text("yes"), ids], [ONE, ASKS])
    assert rendered("headers", played.messages)[1] == played.ids


def test_a_turn_that_the_policy_did_not_write_is_the_templates_to_render() -> None:
    here = chat("opened")
    greeting: list[Message] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]
    opened = here.encode_prompt([*greeting, *ASKS], ())
    assert here.decode(opened.token_ids).endswith(
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nand now?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )
    said = here.turn_message(here.encode_policy_text("\n</think>yes"), hit_end_token=False)
    text = deployed("opened").apply_chat_template([*opened.messages, said], tokenize=False)
    assert text == here.decode(opened.token_ids) + "\n</think>yes"


def test_messages_with_calls_apart_are_rendered_by_the_models_own_template() -> None:
    asked = {"function": {"name": "find", "arguments": {"who": "Mia"}}}
    messages: list[Message] = [*ASKS, {"role": "assistant", "content": "", "tool_calls": [asked]}, *TWO]
    stock = (chats.TEMPLATES / "opened.jinja").read_text(encoding="utf-8")
    told: dict[str, Any] = {"tools": list(TOOLS), "tokenize": False, "add_generation_prompt": True}
    own = deployed("opened").apply_chat_template(messages, chat_template=stock, **told)
    assert deployed("opened").apply_chat_template(messages, **told) == own


def test_the_exported_template_is_taken_as_it_is(tmp_path: Path) -> None:
    for family in chats.FAMILIES:
        chat(family).save(tmp_path / family)
        again = Chat.load(tmp_path / family)
        assert again.template == chat(family).template
        assert (again.call_format, again.end_ids, again.pad_id) == (
            chat(family).call_format,
            chat(family).end_ids,
            chat(family).pad_id,
        )


def test_the_date_in_a_prompt_stands_still() -> None:
    text = chat("headers").decode(chat("headers").encode_prompt(OPENING, ()).token_ids)
    assert "Today: 26 Jul 2024\n" in text


PLAIN = (chats.TEMPLATES / "plain.jinja").read_text(encoding="utf-8")
CLOSES = "{{- '<|im_end|>\\n' -}}\n    {%- endif -%}"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (PLAIN.replace("+ m.content -}}", "+ (m.content if loop.last else '...') -}}"), "does not show"),
        (PLAIN.replace(CLOSES, CLOSES.replace("\\n'", "' ~ loop.index")), "depends on the turns before it"),
        (PLAIN.replace(CLOSES, CLOSES.replace("'<", "'over<")), "expected a special token"),
        (PLAIN.replace('{"name": "', '{"tool": "'), "writes a call as"),
        ("{{ messages[0].nobody.knows }}", "refuses messages"),
    ],
)  # fmt: skip
def test_a_template_whose_suffix_cannot_be_derived_is_refused(template: str, complaint: str) -> None:
    assert template != PLAIN
    with pytest.raises(TemplateError, match=complaint) as caught:
        chats.build(template, chats.QWEN, chats.QWEN_ADDED)
    assert str(caught.value).startswith("folder: ") and "\n" not in str(caught.value)


def test_an_instruction_that_would_not_be_used_is_refused() -> None:
    start = chats.tokenizer(*chats.FAMILIES["plain"])
    start.chat_template = PLAIN
    with pytest.raises(TemplateError, match=r"policy.tool_instruction: the template of \w+ lists the tools itself"):
        Chat(start, "folder", tool_instruction="{tools}")


def test_of_two_templates_the_one_for_tools_is_taken() -> None:
    made = chats.tokenizer(chats.QWEN, chats.QWEN_ADDED)
    made.chat_template = {"default": "{{ messages[0].nobody.knows }}", "tool_use": PLAIN}
    assert Chat(made, "folder").call_format.name == "Hermes"


def test_without_a_pad_token_one_of_the_vocabulary_is_taken_or_the_folder_refused() -> None:
    assert chat("headers").tokenizer.pad_token_id is None
    assert chat("headers").decode(np.array([chat("headers").pad_id], np.int32)) == "<|finetune_right_pad_id|>"
    with pytest.raises(TemplateError, match=r"folder: the tokenizer names no pad token; set pad_token"):
        chats.build(PLAIN, chats.QWEN[1:], chats.QWEN_ADDED)


def test_a_token_with_a_part_in_a_call_is_the_calls() -> None:
    kinds = np.array([T, T, C, C, A], np.uint8)
    spans = np.array([[0, 1], [1, 3], [3, 4], [4, 4], [3, 5], [4, 5]], np.int64)
    assert kinds_of_tokens(kinds, spans).tolist() == [T, C, C, C, C, A]


def test_added_tokens_that_the_template_writes_are_marks_and_the_tags_of_html_are_words() -> None:
    made = chats.tokenizer(chats.GEMMA, ["<table>", "[turn]", "<|fim|>", "   "])
    marks = collect_marks(made, "{{ '[turn]' }}")
    assert {"[turn]", "<|fim|>", "<end_of_turn>"} <= marks
    assert not marks & {"<table>", "   "}
