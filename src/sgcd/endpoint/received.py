"""What a server sent, read as a chat completion."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from sgcd.endpoint.account import Use
from sgcd.endpoint.answer import Answer, Called
from sgcd.endpoint.failures import Failure

Tokens = Annotated[int, Field(ge=0, le=100_000_000)]


class Function(BaseModel):
    name: str = ""
    arguments: str | dict[str, Any] | None = None
    """A text of JSON; some servers send the object itself."""


class ToolCall(BaseModel):
    id: str | None = None
    function: Function


class Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(BaseModel):
    message: Message
    finish_reason: str | None = None


class Completion(BaseModel):
    """The part of a chat completion that is needed; whatever else a server sends is its own affair."""

    choices: Annotated[list[Choice], Field(min_length=1)]


class Usage(BaseModel):
    prompt_tokens: Tokens
    completion_tokens: Tokens


class Used(BaseModel):
    usage: Usage


def received(body: bytes) -> tuple[Answer, Use | None]:
    """The answer, and the tokens that it took if the server says so."""
    try:
        choice = Completion.model_validate_json(body).choices[0]
    except ValidationError:
        raise Failure("unreadable", "the answer is no chat completion", billed=True) from None
    said, use = choice.message, used(body)
    calls = tuple(_called(call, number) for number, call in enumerate(said.tool_calls or ()))
    refused = bool(said.refusal and not said.content and not calls)
    text = (said.refusal if refused else said.content) or ""
    finish = "refusal" if refused else choice.finish_reason or "stop"
    return Answer(text, finish, calls, use.answer if use else 0), use


def _called(call: ToolCall, number: int) -> Called:
    told = call.function.arguments
    arguments = told if isinstance(told, str) else json.dumps(told or {})
    return Called(call.id or f"call_{number}", call.function.name, arguments)


def used(body: bytes) -> Use | None:
    try:
        usage = Used.model_validate_json(body).usage
    except ValidationError:
        return None
    return Use(usage.prompt_tokens, usage.completion_tokens)
