"""Calls in the dialects of real models: what they say, or what is wrong with them in a sentence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from helpers.chats import OPENING, TOOLS, chat
from sgcd.chat.call_formats import parse_bare_calls, parse_json_call, parse_tag_call
from sgcd.records import Call

MIA = Call("find", {"who": "Mia"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('\n{"name": "find", "arguments": {"who": "Mia"}}\n', MIA),
        ('{"arguments": {}, "name": "find"}', Call("find", {})),
        ('{"name": "find", "parameters": {"who": "Mia"}}', MIA),
        (" \n", "the call is empty"),
        ('{"name": "find", "arguments": {"who": "Mia"}', "is not JSON: Expecting ',' delimiter at character 44"),
        ('{"name": "find", "arguments": {}} and more', "goes on at character 33"),
        ("find(who='Mia')", "the call \"find(who='Mia')\" is not JSON: Expecting value at character 0"),
        ('"find"', "a call is a JSON object with name and arguments, this one is"),
        ('[{"name": "find", "arguments": {}}]', "a call is a JSON object"),
        ('{"arguments": {}}', "the call names no tool"),
        ('{"name": 3, "arguments": {}}', "the call names no tool"),
        ('{"name": "find"}', "the call of find has no arguments; they are {} where none are needed"),
        ('{"name": "find", "arguments": "Mia"}', "the arguments of find must be a JSON object"),
        ('{"name": "find", "arguments": {"who": 1, "who": 2}}', "'who' is given twice"),
        ('{"name": "find", "arguments": {"who": NaN}}', "is not JSON that can be read"),
        ('{"name": "find", "arguments": {"who": 1e999}}', "is not JSON that can be read"),
        ('{"name": "find", "arguments": {"who": ["\\ud800"]}}', "is not JSON that can be read"),
        ('{"name": "find", "arguments": {"who": ' + "9" * 5000 + "}}", "is not JSON that can be read"),
        ("[" * 100_000, "is not JSON that can be read"),
    ],
)
def test_json_calls(text: str, expected: Call | str) -> None:
    agrees(parse_json_call(text), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n<function=find>\n<parameter=who>\nMia\n</parameter>\n</function>\n", MIA),
        ("<function=find></function>", Call("find", {})),
        ("<function=find>\n<parameter=who>\n3\n</parameter>\n<parameter=count>\n3\n</parameter>\n</function>",
         Call("find", {"who": "3", "count": 3})),
        ("<function=find><parameter=deep>True</parameter></function>", Call("find", {"deep": True})),
        ("<function=find><parameter=deep>true</parameter></function>", Call("find", {"deep": True})),
        ("<function=find><parameter=count>many</parameter></function>", Call("find", {"count": "many"})),
        ("<function=find><parameter=who>\n\na\nb\n\n</parameter></function>", Call("find", {"who": "\na\nb\n"})),
        ("<function=other><parameter=count>3</parameter></function>", Call("other", {"count": "3"})),
        ("  ", "the call is empty"),
        ('{"name": "find", "arguments": {}}', "a call is <function=NAME> to </function>, this one is"),
        ("<function=find><parameter=who>Mia</parameter>", "a call is <function=NAME> to </function>"),
        ("<function=></function>", "the call names no tool"),
        ("<function=find><parameter=>3</parameter></function>", "an argument of find has no name"),
        ("<function=find><parameter=who>Mia</function>", "each argument of find is <parameter=NAME> to </parameter>"),
        ("<function=find>who is Mia</function>", "this is none: 'who is Mia'"),
        ("<function=find><parameter=who>a</parameter><parameter=who>b</parameter></function>",
         "an argument of find is given twice"),
    ],
)  # fmt: skip
def test_tagged_calls(text: str, expected: Call | str) -> None:
    agrees(parse_tag_call(text, TOOLS), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "find", "parameters": {"who": "Mia"}}', [MIA]),
        ('<|python_tag|>{"name": "find", "parameters": {"who": "Mia"}}', [MIA]),
        ('{"name": "find", "parameters": {"who": "Mia"}}; {"name": "find", "parameters": {}}', [MIA, Call("find", {})]),
        ('{"name": "find", "arguments": {"who": "Mia"}}\n<|python_tag|>{"name": "find", "parameters": {}} ',
         [MIA, Call("find", {})]),
        ("<|python_tag|>", "the call is empty"),
        ('<|python_tag|>find.call(who="Mia")', "is not JSON: Expecting value at character 14"),
        ('{"name": "find", "parameters": {"who": "Mia"}} I say', "is not JSON: Expecting value at character 47"),
        ('{"name": "find", "parameters": 3}', "the parameters of find must be a JSON object, they are '3'"),
    ],
)  # fmt: skip
def test_bare_calls(text: str, expected: list[Call] | str) -> None:
    agrees(parse_bare_calls(text), expected)


def agrees(found: Any, expected: Any) -> None:
    if isinstance(expected, str):
        assert isinstance(found, str) and expected in found and "\n" not in found and len(found) < 160
    else:
        assert found == expected


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_every_json_call_is_read_as_it_was_written(arguments: dict[str, Any]) -> None:
    from json import dumps

    written = dumps({"name": "find", "arguments": arguments})
    assert parse_json_call(written) == Call("find", arguments)
    assert parse_bare_calls(written + written) == [Call("find", arguments)] * 2


@given(st.text(), st.sampled_from([parse_json_call, parse_tag_call, parse_bare_calls]))
def test_whatever_is_sampled_is_a_call_or_a_sentence(text: str, parse: Any) -> None:
    found = parse(text, TOOLS)
    assert isinstance(found, Call | str | list) and (not isinstance(found, str) or "\n" not in found)


@pytest.mark.parametrize(
    "text",
    [
        "The booking is for Mia.",
        '<tool_call>\n{"name": "find", "arguments": {"who": "Mia", "count": 3}}\n</tool_call>',
        'I look.\n<tool_call>\n{"name": "find", "arguments": {"who": "Mia"}}\n</tool_call>',
        "<think>\nI know.\n</think>\n\nFor Mia.",
    ],
)
def test_the_parser_of_transformers_reads_a_turn_of_a_saved_policy_as_ours_does(text: str, tmp_path: Path) -> None:
    here = chat("plain")
    here.save(tmp_path)
    tokenizer: Any = AutoTokenizer
    ids = here.encode_turn(text)
    opening = here.encode_prompt(OPENING, TOOLS).token_ids.tolist()
    read = tokenizer.from_pretrained(tmp_path).parse_response(ids.tolist(), prefix=opening)
    ours, _ = here.parse_turn(ids, TOOLS)
    calls = tuple(Call(call["function"]["name"], call["function"]["arguments"]) for call in read.get("tool_calls", ()))
    assert (read.get("content", ""), read.get("reasoning_content", ""), calls) == (ours.text, ours.thinking, ours.calls)
