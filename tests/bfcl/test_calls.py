"""Only a call of a function by name with literal arguments becomes text that the benchmark evaluates."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.act.environments.bfcl.benchmark_server import RefusedCall, parse_call, render_call

TEXTS = st.text("ab'\"\\\n\r\0(){}[]=,*:;#. _\u00e9\ud800", max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["source", "count", "x"]), VALUES))
def test_any_json_under_plain_names_comes_back(arguments: dict[str, Any]) -> None:
    name, by_position, by_name = parse_call(render_call("mv", arguments))
    assert (name, by_position) == ("mv", [])
    assert json.dumps(by_name) == json.dumps(arguments)


@settings(max_examples=60)
@given(TEXTS, TEXTS, VALUES)
def test_no_text_in_a_name_becomes_code(name: str, key: str, value: Any) -> None:
    try:
        text = render_call(name, {key: value})
    except RefusedCall:
        return
    assert parse_call(text)[0] == name
    assert name.isidentifier()
    assert key.isidentifier()


@pytest.mark.parametrize(
    "key",
    ["a=exit(),b", "a=(lambda: 1)(),b", "**{}, b", "a=__import__('os').getpid(), b", "x=1)\nexit(", "", "a b", "if"],
)
def test_code_in_the_name_of_an_argument_is_refused(key: str) -> None:
    with pytest.raises(RefusedCall):
        render_call("mv", {key: 1})


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "__import__('os').system",
        "(lambda **x: 1)",
        "[].append",
        "a or exit",
        "mv(a=1) or mv",
        "",
        "f'{1}'",
    ],
)
def test_a_function_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(RefusedCall):
        render_call(name, {"a": 1})


@pytest.mark.parametrize(
    "text",
    [
        "mv(a=exit())", "mv(exit())", "mv(*[1])", "mv(**{'a': 1})", "mv(a=[i for i in (1,)])", "mv(a=f'{exit()}')",
        "mv(a=b)", "mv(a=b.c)", "mv(a='x' * 9)", "mv(a=lambda: 1)", "mv(a=(b := 1))", "mv(a=1); exit()", "mv",
        "(mv)(a=1).b", "mv(a=1) if 1 else 2", "import os", "mv(a=" + "[" * 500 + "]" * 500 + ")",
        "mv(a=" + "-" * 9000 + "1)",
    ],
)  # fmt: skip
def test_what_is_more_than_literals_is_refused(text: str) -> None:
    with pytest.raises(RefusedCall):
        parse_call(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_a_number_that_has_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(RefusedCall):
        render_call("mv", {"a": value})
