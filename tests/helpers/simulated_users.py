"""Scripts for the loopback server: one plays a simulated user, others a model that calls the lab's tools."""

import json
from collections.abc import Callable
from typing import Any

from sgcd.act.user import END_MARK
from sgcd.lab import words
from sgcd.lab.tasks import generate_tasks
from sgcd.lab.world import WRITE_TOOL_OF, Request, booking_from_json, is_allowed

Plan = Callable[[int, dict[str, Any]], str]

DOOR = '''
class Door:
    def reset(self, word: str) -> None:
        self.word = word

    def find_user(self, name: str) -> str:
        """Find a customer.

        Args:
            name: of the customer
        """
        return f"user {name}"


def heard(door: Door, answer: str) -> float:
    return float(door.word in answer.split())
'''
"""An environment that is only a conversation: its row names the word that the policy's last turn must contain."""


def says(text: str, **more: Any) -> str:
    """An answer in words."""
    return json.dumps({"content": text, **more})


def calls(*tools: tuple[str, Any], text: str | None = None) -> str:
    """An answer that calls tools; arguments that are a string are sent unchanged."""
    tool_calls = [
        {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)},
        }
        for number, (name, arguments) in enumerate(tools)
    ]
    return json.dumps({"content": text, "tool_calls": tool_calls})


def wants(request: dict[str, Any]) -> str:
    """The word that the simulated user of these tests waits for: the last of its instructions."""
    return request["messages"][0]["content"].split("You want to hear ")[1].split()[0]


def word_seeking_user(number: int, request: dict[str, Any]) -> str:
    """A user who requests one word, repeats the request until it comes, and then leaves."""
    word, *replies = wants(request), *request["messages"][2:]
    if not replies:
        return says(f"please say {word}")
    return says(f"thank you {END_MARK}" if word in replies[-1]["content"].split() else f"i want {word}")


def lab_agent(number: int, request: dict[str, Any]) -> str:
    """A model that knows every dev task of the lab by its text and solves it."""
    request_text = next(message["content"] for message in request["messages"] if message["role"] == "user")
    task = next(
        task for task in (*generate_tasks("dev"), *generate_tasks("train")) if task.row["said"][0] == request_text
    )
    row, wish = booking_from_json(task.row["rows"][0]), Request(**task.row["requests"][0])
    if request["messages"][-1]["role"] == "tool":
        return says(words.CONFIRMATION)
    if wish.intent.startswith("ask_"):
        attribute = wish.intent.removeprefix("ask_")
        return says(f"your {attribute} is {getattr(row, attribute)} thank you")
    if task.category == "transfer":
        return calls(("transfer_to_human", {}))
    if not is_allowed(wish, row):
        return says(words.REFUSAL)
    tool = WRITE_TOOL_OF[wish.intent]
    return calls((tool, dict(zip(words.TOOLS[tool][0], (row.booking, wish.value), strict=False))))


def toolless_agent(number: int, request: dict[str, Any]) -> str:
    """A model that never calls a tool and never answers the question."""
    return says("what a lovely day")
