"""What a server sent, read as a chat completion."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from sgcd.endpoint.completion import Completion, ToolCall
from sgcd.endpoint.failures import AttemptFailed
from sgcd.endpoint.usage import TokenUsage

_TokenCount = Annotated[int, Field(ge=0, le=100_000_000)]


class _FunctionBody(BaseModel):
    name: str = ""
    arguments: str | dict[str, Any] | None = None
    """A text of JSON; some servers send the object itself."""


class _ToolCallBody(BaseModel):
    id: str | None = None
    function: _FunctionBody


class _MessageBody(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCallBody] | None = None


class _ChoiceBody(BaseModel):
    message: _MessageBody
    finish_reason: str | None = None


class _CompletionBody(BaseModel):
    """The part of a chat completion that is needed; whatever else a server sends is its own affair."""

    choices: Annotated[list[_ChoiceBody], Field(min_length=1)]


class _UsageBody(BaseModel):
    prompt_tokens: _TokenCount
    completion_tokens: _TokenCount


class _UsageEnvelope(BaseModel):
    usage: _UsageBody


def parse_completion(body: bytes) -> tuple[Completion, TokenUsage | None]:
    """The answer, and the tokens that it took if the server says so."""
    try:
        choice = _CompletionBody.model_validate_json(body).choices[0]
    except ValidationError:
        raise AttemptFailed("unreadable", "the answer is no chat completion", billed=True) from None
    message, token_usage = choice.message, _parse_usage(body)
    calls = tuple(_parse_tool_call(call, number) for number, call in enumerate(message.tool_calls or ()))
    refused = bool(message.refusal and not message.content and not calls)
    text = (message.refusal if refused else message.content) or ""
    finish_reason = "refusal" if refused else choice.finish_reason or "stop"
    return Completion(text, finish_reason, calls, token_usage.completion_tokens if token_usage else 0), token_usage


def _parse_tool_call(call: _ToolCallBody, number: int) -> ToolCall:
    sent = call.function.arguments
    arguments = sent if isinstance(sent, str) else json.dumps(sent or {})
    return ToolCall(call.id or f"call_{number}", call.function.name, arguments)


def _parse_usage(body: bytes) -> TokenUsage | None:
    try:
        usage = _UsageEnvelope.model_validate_json(body).usage
    except ValidationError:
        return None
    return TokenUsage(usage.prompt_tokens, usage.completion_tokens)
