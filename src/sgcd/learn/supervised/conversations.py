"""Reads conversations to learn from: JSON lines of messages and tools, as in OpenAI's chat data."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from sgcd.errors import DataError

DEMONSTRATIONS_FILE = "demonstrations.jsonl"
"""In a folder that `sgcd collect` has made."""


class FunctionCall(BaseModel):
    """The tool that is called, and its arguments: a JSON text, or the object itself."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class NativeCall(BaseModel):
    """A call apart from the message's text."""

    function: FunctionCall


def _join_parts(content: Any) -> Any:
    """The parts of a content as one text; anything else as it is, for the type to judge."""
    if not isinstance(content, list):
        return "" if content is None else content
    texts: list[str] = []
    for part in cast("list[Any]", content):
        text: Any = cast("dict[str, Any]", part).get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise ValueError("a part of it is no text")
        texts.append(text)
    return "".join(texts)


class GivenMessage(BaseModel):
    """One message; other keys, such as a tool message's name, say nothing that a template renders."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_join_parts)] = ""
    reasoning_content: str | None = None
    """The thinking of an assistant's turn, apart from its text."""
    tool_calls: list[NativeCall] | None = None
    weight: Literal[0, 1] = 1
    """0: an assistant's turn that is only read, as in OpenAI's data."""


class ToolFunction(BaseModel):
    """The part of a schema that is needed to know whether a tool exists."""

    name: Annotated[str, Field(min_length=1)]


class ToolSchema(BaseModel):
    """A tool; its whole schema goes to the template."""

    function: ToolFunction


class ConversationLine(BaseModel):
    """The keys of a line that are read."""

    messages: Annotated[list[GivenMessage], Field(min_length=1)]
    tools: list[ToolSchema] | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a file."""

    messages: tuple[GivenMessage, ...]
    tools: tuple[Mapping[str, Any], ...]
    where: str
    """File and line."""

    @property
    def tool_names(self) -> frozenset[str]:
        return frozenset(str(tool["function"]["name"]) for tool in self.tools)


def find_files(key: str, paths: Sequence[str]) -> list[Path]:
    """The files that a recipe's key names; for a folder, the one that `sgcd collect` wrote there."""
    files: list[Path] = []
    for path in map(Path, paths):
        file = path / DEMONSTRATIONS_FILE if path.is_dir() else path
        if not file.is_file():
            raise DataError(
                f"{key}: {path} holds no conversations; expected a file of JSON lines, or a folder that sgcd collect "
                f"has made, seen from {Path.cwd()}"
            )
        files.append(file)
    return files


def read_conversations(file: Path) -> Iterator[Conversation]:
    """The conversations of a file, in its order."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8"
        raise DataError(f"{file}: cannot be read ({reason}); expected JSON lines") from problem
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse_line(f"{file}, line {number}", line)


def _parse_line(where: str, line: str) -> Conversation:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{where}: not JSON ({problem}); expected one object with messages on each line") from problem
    try:
        parsed = ConversationLine.model_validate(row)
    except ValidationError as problem:
        detail = problem.errors()[0]
        place = ".".join(map(str, detail["loc"])) or "the line"
        raise DataError(
            f"{where}: {place}: {detail['msg']}; expected messages as in OpenAI's chat data, each with a role and a "
            "text, and tools as JSON schemas"
        ) from problem
    return Conversation(tuple(parsed.messages), tuple(row.get("tools") or ()), where)
