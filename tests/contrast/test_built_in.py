"""The built-in writer on steps that are drawn: what it says of one side, it never says of the other."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.group import run
from sgcd.contrast.steps import Origin, Step, StepValue
from sgcd.contrast.trace import Trace
from sgcd.contrast.writers import WriterFailed
from sgcd.contrast.writers.acts import list_acts
from sgcd.contrast.writers.built_in import BuiltInWriter, compose_reference, find_points

ORIGINS = [Origin("user"), Origin("result", "a", "id"), Origin("result", "b"), Origin("new"), Origin("enum")]


def value(argument: str, identity: int, origin: Origin = ORIGINS[0], *, size: int | None = None) -> StepValue:
    return StepValue(argument, identity, origin, size, identity)


def call(tool: str, *values: StepValue, is_error: bool = False) -> Step:
    return Step("call", tool, is_error, values)


def traces(successes: list[list[Step]], failures: list[list[Step]]) -> list[Trace]:
    pairs = [*((True, steps) for steps in successes), *((False, steps) for steps in failures)]
    return [Trace(success, (), sibling, steps=tuple(steps)) for sibling, (success, steps) in enumerate(pairs)]


VALUES = st.builds(
    lambda argument, identity, origin, is_number: value(
        argument, identity, origin, size=identity if is_number else None
    ),
    st.sampled_from("xy"),
    st.integers(0, 3),
    st.sampled_from(ORIGINS),
    st.booleans(),
)
CALLS = st.builds(
    lambda tool, values, is_error: call(tool, *values, is_error=is_error),
    st.sampled_from("abc"), st.lists(VALUES, max_size=2), st.booleans(),
)  # fmt: skip
ENDS = st.sampled_from(
    [[], [Step("answer")], [Step("answer", values=(value("", 9, ORIGINS[1]),))], [Step("limit", "turns")]]
)
STEPS = st.builds(lambda calls, end: [*calls, *end], st.lists(CALLS, max_size=4), ENDS)
SIDES = st.lists(STEPS, min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(successes=SIDES, failures=SIDES)
def test_no_act_is_right_and_wrong_nor_right_when_outcomes_are_exchanged(
    successes: list[list[Step]], failures: list[list[Step]]
) -> None:
    points = find_points(traces(successes, failures))
    exchanged = find_points(traces(failures, successes))
    rights = {point.right.phrase for point in points}
    assert len(rights) == len(points) <= 3
    assert rights.isdisjoint(point.wrong.phrase for point in points if point.wrong)
    assert rights.isdisjoint(point.right.phrase for point in exchanged)


@settings(max_examples=15, deadline=None)
@given(steps=SIDES)
def test_equal_sides_are_parted_by_nothing(steps: list[list[Step]]) -> None:
    assert find_points(traces(steps, steps)) == []
    with pytest.raises(WriterFailed, match=r"^nothing parts them: "):
        run(BuiltInWriter().write(traces(steps, steps)))


END = Step("answer")
A, B = call("a"), call("b")


@pytest.mark.parametrize(
    ("success", "failure", "right", "wrong"),
    [
        ([A, B, END], [B, END], "call a before b", "call b first"),
        ([A, END], [A, A, END], "call a once", "call a twice"),
        ([A, END], [A, B, END], "answer right after a", "call b"),
        ([END], [A, END], "answer without any call", "call a"),
        ([A, END], [A, Step("limit", "turns")], "end with an answer", "run into the limit of turns"),
        ([A, B], [A, END], "call b", "end with an answer"),
        ([call("a", value("x", 1, size=1)), END], [call("a", value("x", 2, size=2)), END],
         "give a smaller number as the x of a", "give a larger number as the x of a"),
        ([call("a", value("x", 2)), END], [call("a", value("x", 1)), END],
         "copy the x of a from later in the user's words", "copy the x of a from earlier in the user's words"),
        ([call("a", value("x", 1, Origin("enum"))), END], [call("a", value("x", 2, Origin("enum"))), END],
         "choose the x of a earlier in its listed constants", "choose the x of a later in its listed constants"),
        ([call("a", value("x", 1, Origin("count"), size=1)), END],
         [call("a", value("x", 2, Origin("count"), size=2)), END],
         "give fewer entries in the x of a", "give more entries in the x of a"),
        ([call("a", value("x", 1, Origin("true"))), END], [call("a", value("x", 2, Origin("false"))), END],
         "set the x of a to true", "set the x of a to false"),
        ([call("a", value("x", 1)), END], [A, END], "give the x of a", "leave out the x of a"),
        ([call("a", value("x", 1), is_error=True), call("a", value("x", 2)), END],
         [call("a", value("x", 1), is_error=True), call("a", value("x", 1), is_error=True), END],
         "call a again with another x when it complains", "repeat the same call of a when it complains"),
        ([call("a", is_error=True), B, END], [call("a", is_error=True), END],
         "call b when a complains", "give up and answer when a complains"),
    ],
)  # fmt: skip
def test_what_parts_two_attempts(success: list[Step], failure: list[Step], right: str, wrong: str) -> None:
    point = find_points(traces([success], [failure]))[0]
    assert (point.right.phrase, point.wrong and point.wrong.phrase) == (right, wrong)
    text = compose_reference(traces([success], [failure]), names_failures=True)
    assert f"Successful attempts {right}.\nFailed attempts {wrong}." in text
    assert "Failed" not in compose_reference(traces([success], [failure]))


def test_what_most_successes_share_comes_before_what_one_does() -> None:
    points = find_points(traces([[A, B, END], [A, B, END], [B, A, END]], [[B, END]]))
    assert points[0].right.phrase == "call a"


def test_a_failure_like_one_success_is_told_apart_from_the_next() -> None:
    points = find_points(traces([[A, END], [A, B, END]], [[A, END]]))
    assert [point.right.phrase for point in points] == ["call b"]


def test_acts_name_no_number_of_a_value() -> None:
    steps = [call("a", value("x", 41, size=42)), END]
    assert all("4" not in placed.act.phrase for placed in list_acts(steps, {"a": ["x"]}))
    assert replace(value("x", 41), place=7) == value("x", 41)
