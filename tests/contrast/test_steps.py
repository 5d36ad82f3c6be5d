"""Where the values of calls come from, and what of them a step still shows."""

from typing import Any, Literal

import pytest
from typing_extensions import TypedDict

from helpers.group import LAB
from helpers.played_class import play
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.steps import Origin, Step
from sgcd.contrast.trace import build_traces

NONE = Literals({})
LOOKUP = ("get_orders", {"name": "ann"})


class Shop:
    """A shop with one tool of each kind of result."""

    def reset(self) -> str:
        return "I am Ann. Refund twelve euros for order A-17, to New York. It cost 1,250.00 euros."

    def get_orders(self, name: str) -> list[dict[str, Any]]:
        """Orders of a customer."""
        return [{"id": "A-16", "card_88": {"owner": "bo"}}, {"id": "B-18", "paid": True}]

    def note(self, order: Any = "", items: Any = None) -> str:
        """Write it down."""
        if order == "A-99":
            raise ValueError("unknown order , try C-20")
        return "noted as n55"

    def get_reward(self) -> float:
        return 1.0


def steps_of(*turns: Any, literals: Literals = NONE, max_turns: int = 8) -> tuple[Step, ...]:
    return build_traces(play(Shop, {}, [turns], max_turns=max_turns).rollouts, literals, LAB)[0].steps


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("A-17", Origin("user")),
        ("a-17", Origin("user")),
        (12, Origin("user")),
        ("12", Origin("user")),
        (1250, Origin("user")),
        ("1250.0", Origin("user")),
        ("new york", Origin("user")),
        ("York New", Origin("new")),
        ("17", Origin("new")),
        ("B-18", Origin("result", "get_orders", "id")),
        ("bo", Origin("result", "get_orders", "owner")),
        (True, Origin("true")),
        (False, Origin("false")),
        ("", Origin("empty")),
        (None, Origin("empty")),
        (13.5, Origin("new")),
    ],
)
def test_a_value_comes_from_the_first_text_that_has_it(value: object, origin: Origin) -> None:
    note = steps_of(LOOKUP, ("note", {"order": value}), "Done.")[1]
    assert [(one.argument, one.origin) for one in note.values] == [("order", origin)]


def test_a_complaint_is_a_text_to_copy_from() -> None:
    steps = steps_of(("note", {"order": "A-99"}), ("note", {"order": "C-20"}), "Done.")
    assert [step.is_error for step in steps] == [True, False, False]
    assert steps[1].values[0].origin == Origin("result", "note")


def test_equal_values_have_equal_numbers_and_numbers_their_rank() -> None:
    steps = steps_of(*[("note", {"order": value}) for value in (7, 30, 7.0, "x")], "Done.")
    values = [step.values[0] for step in steps[:4]]
    assert values[0] == values[2] != values[1]
    assert [value.size for value in values] == [0, 1, 0, None]


def test_entries_of_lists_are_values_and_so_is_their_number() -> None:
    one, two = steps_of(("note", {"items": [{"id": "A-17"}]}), ("note", {"items": []}), "Done.")[:2]
    assert [(value.argument, value.origin.kind) for value in one.values] == [("items", "count"), ("items id", "user")]
    assert [(value.argument, value.origin.kind) for value in two.values] == [("items", "count")]
    assert (one.values[0].size, two.values[0].size) == (1, 0)


def test_an_answer_repeats_results_and_not_what_the_user_had_said() -> None:
    last = steps_of(LOOKUP, ("note", {"order": "A-17"}), "Order B-18 is noted as n55 for Ann, A-17.")[-1]
    assert [value.origin for value in last.values] == [Origin("result", "get_orders", "id"), Origin("result", "note")]
    assert steps_of(LOOKUP, "A-17 , Ann")[-1] == Step("answer")


def test_a_limit_is_a_step() -> None:
    assert steps_of(LOOKUP, LOOKUP, "x", max_turns=2)[-1] == Step("limit", "turns")


def test_names_that_may_be_values_are_replaced() -> None:
    (step,) = steps_of(("note", {"items": {"mia": "x", "b12": "y", "kind": "mia"}}), "Done.")[:1]
    assert [value.argument for value in step.values] == ["items value", "items value", "items kind"]
    (step,) = steps_of(("note", {"order": "x"}), "Done.", literals=Literals.from_texts(["order"]))[:1]
    assert step.values[0].argument == "value"


class Clerk:
    """A clerk whose tool answers in plain text."""

    def reset(self) -> str:
        return "I am Ann."

    def find(self) -> str:
        """Find the seats."""
        return "- seat : 12A\n- seat : 14C\n- cabin = gold class"

    def book(self, seat: str) -> str:
        """Book a seat."""
        return "done, thank you"

    def get_reward(self) -> float:
        return 1.0


def test_a_plain_text_of_names_and_values_has_fields() -> None:
    turns = [("find", {}), ("book", {"seat": "14C"}), "your cabin is gold class"]
    steps = build_traces(play(Clerk, {}, [turns]).rollouts, NONE, LAB)[0].steps
    [seat] = steps[1].values
    assert (seat.origin, seat.place) == (Origin("result", "find", "seat"), 1)
    assert [value.origin for value in steps[-1].values] == [Origin("result", "find", "cabin")]


class Form:
    """A tool whose constants are inside its arguments."""

    def reset(self) -> str:
        return "Fill it in."

    def fill(self, rows: "list[Row]", mood: Literal["calm", "loud"] | None = None) -> str:
        """Fill in a form."""
        return "filled"

    def get_reward(self) -> float:
        return 1.0


class Row(TypedDict):
    colour: Literal["red", "blue"]
    name: str


def test_constants_are_known_wherever_a_schema_has_them() -> None:
    attempt = ("fill", {"rows": [{"colour": "blue", "name": "blue"}], "mood": "loud"})
    group = play(Form, {}, [[attempt]], max_turns=1)
    (step, *_) = build_traces(group.rollouts, NONE, LAB)[0].steps
    origins = {value.argument: value.origin.kind for value in step.values}
    assert origins == {"rows": "count", "rows colour": "enum", "rows name": "new", "mood": "enum"}
