"""Recorded rollouts of a small booking desk, as another tool would write them down."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
BOOK = {
    "type": "function",
    "function": {
        "name": "book",
        "parameters": {"type": "object", "properties": {"seats": {"type": "integer"}, "cabin": {"type": "string"}}},
    },
}


def call(name: str, **arguments: Any) -> Json:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}


def answered(content: str) -> Json:
    return {"role": "tool", "tool_call_id": "1", "content": content}


def says(content: str) -> Json:
    return {"role": "assistant", "content": content}


def asks(content: str) -> Json:
    return {"role": "user", "content": content}


def booking(seats: int, reward: float, *, looks: bool = False, task: str = "t1", **more: Any) -> Json:
    """A rollout that books some seats, after looking where `looks`."""
    look = [call("look"), answered('{"free": 3}')] if looks else []
    messages = [
        {"role": "system", "content": "You book seats."},
        asks("Two seats please, or three if there are three."),
        *look,
        call("book", seats=seats, cabin="economy"),
        answered("booked"),
        says("It is done."),
    ]
    return {"task_id": task, "reward": reward, "messages": messages, "tools": [BOOK], **more}


MIXED = [booking(3, 1.0, looks=True), booking(2, 0.0), booking(2, 0.0), booking(3, 1.0, looks=True)]


def write_lines(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path
