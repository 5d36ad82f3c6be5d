from typing import Any, Literal

import pytest

from sgcd.act.tools import build_tools
from sgcd.errors import EnvironmentFault


class Desk:
    """A helpdesk."""

    def reset(self, **row: Any) -> None: ...

    def get_reward(self) -> float:
        return 0.0

    def close(self) -> None: ...

    def _look_up(self) -> None: ...

    def add_bags(self, booking: str, count: int, tags: list[str] | None = None) -> str:
        """
        Add bags to a booking.

        Only for silver and gold.

        Args:
            booking: Id of the booking,
                as the customer says it.
            count (int): How many,
                counted: at least one.

        Returns:
            What was added.
        """
        return f"{booking} {count + 1} {tags}"

    async def set_cabin(self, *, cabin: Literal["basic", "economy"], paid: bool = False) -> str:
        """Choose a cabin."""
        return cabin


def test_the_schema_of_a_method_is_its_hints_and_its_docstring():
    tools = build_tools(Desk)
    assert list(tools) == ["add_bags", "set_cabin"]
    assert tools["add_bags"].schema == {
        "type": "function",
        "function": {
            "name": "add_bags",
            "description": "Add bags to a booking.\n\nOnly for silver and gold.",
            "parameters": {
                "type": "object",
                "properties": {
                    "booking": {"type": "string", "description": "Id of the booking, as the customer says it."},
                    "count": {"type": "integer", "description": "How many, counted: at least one."},
                    "tags": {"anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}]},
                },
                "required": ["booking", "count"],
            },
        },
    }
    cabin = tools["set_cabin"].schema["function"]
    assert cabin["parameters"]["properties"]["cabin"] == {"enum": ["basic", "economy"], "type": "string"}
    assert cabin["parameters"]["required"] == ["cabin"]


@pytest.mark.parametrize(
    ("tool", "given", "expected"),
    [
        ("add_bags", {"booking": "b12", "count": 2}, {"booking": "b12", "count": 2}),
        ("add_bags", {"booking": "b12", "count": "2"}, {"booking": "b12", "count": 2}),
        ("add_bags", {"booking": "b12"}, "add_bags needs the argument count"),
        ("add_bags", {"boking": "b12", "count": 2}, "add_bags has no argument boking"),
        (
            "add_bags",
            {"booking": "b12", "count": "two"},
            "the argument count of add_bags does not fit : input should be a valid integer, "
            "unable to parse string as an integer",
        ),
        (
            "set_cabin",
            {"cabin": "first"},
            "the argument cabin of set_cabin does not fit : input should be 'basic' or 'economy'",
        ),
    ],
)
def test_arguments_fit_or_it_is_said_why_not(tool: str, given: dict[str, Any], expected: Any):
    assert build_tools(Desk)[tool].validate_arguments(given) == expected


def make(source: str) -> type:
    spaces: dict[str, Any] = {}
    exec("from typing import *\nclass Own:\n    " + source.replace("\n", "\n    "), spaces)
    return spaces["Own"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def reset(self): ...\ndef get_reward(self): ...", "Own has no tools"),
        ("def _hidden(self): ...\nsize = 3\nlook = staticmethod(print)", "Own has no tools"),
        ("def look(self): ...", "Own.look has no docstring"),
        ("def look(self, at):\n    'Look.'", "the argument at has no type hint; expected one, such as at: str"),
        ("def look(self, at: 'Place'):\n    'Look.'", "type hints cannot be read (name 'Place' is not defined)"),
        ("def look(self, *at: str):\n    'Look.'", "*at: str cannot be described to a policy"),
        ("def look(self, at: Callable[[], int]):\n    'Look.'", "which has no JSON form"),
        ("class Place: ...\ndef look(self, at: Place):\n    'Look.'", "which has no JSON form"),
    ],
)
def test_a_class_that_cannot_be_described_is_refused_in_one_line(source: str, words: str):
    with pytest.raises(EnvironmentFault) as refusal:
        build_tools(make(source))
    assert words in str(refusal.value)
    assert "environment.class" in str(refusal.value)
    assert "\n" not in str(refusal.value)
