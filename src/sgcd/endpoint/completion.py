"""A model's answer: text, calls and finish reason; parsed from a response, and as JSON for the cache."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, ValidationError

from sgcd.endpoint.failures import AttemptFailed
from sgcd.endpoint.usage import TokenUsage

_OLD_NAMES = {"finish": "finish_reason", "tokens": "num_tokens"}
"""Keys in caches that sgcd 0.1 wrote."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A native tool call; `arguments` is the text that the server sent."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of the model.

    >>> Completion("hello").is_complete
    True
    """

    text: str
    finish_reason: str = "stop"
    """stop, tool_calls, length, content_filter; refusal where the server marks the text as one."""
    calls: tuple[ToolCall, ...] = ()
    num_tokens: int = 0
    """Tokens that the model wrote, thinking included; 0 where the server does not report them."""
    num_prompt_tokens: int = 0
    """Tokens of the request, as the server counts them; 0 where it does not."""

    @property
    def is_complete(self) -> bool:
        """Whether the model ended the answer itself."""
        return self.finish_reason != "length"

    @property
    def is_empty(self) -> bool:
        return not self.text.strip() and not self.calls

    def contains(self, key: str) -> bool:
        call_texts = (part for call in self.calls for part in (call.id, call.name, call.arguments))
        return any(key in text for text in (self.text, *call_texts))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Completion":
        """Read the JSON of `to_json`, or of a version without calls."""
        fields = {_OLD_NAMES.get(name, name): value for name, value in data.items()}
        calls = cast("list[dict[str, str]]", fields.pop("calls", []))
        return cls(**fields, calls=tuple(ToolCall(**call) for call in calls))


# -- from a response --------------------------------------------------------------------------------------------------

_TokenCount = Annotated[int, Field(ge=0, le=100_000_000)]


class _FunctionBody(BaseModel):
    name: str = ""
    arguments: str | dict[str, Any] | None = None
    """A JSON text; some servers send the object itself."""


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
    """The needed part of a chat completion; other keys are ignored."""

    choices: Annotated[list[_ChoiceBody], Field(min_length=1)]


class _UsageBody(BaseModel):
    prompt_tokens: _TokenCount
    completion_tokens: _TokenCount


class _UsageEnvelope(BaseModel):
    usage: _UsageBody


def parse_completion(body: bytes) -> tuple[Completion, TokenUsage | None]:
    """Parse the answer, and the usage if the server reports it."""
    try:
        choice = _CompletionBody.model_validate_json(body).choices[0]
    except ValidationError:
        raise AttemptFailed("unreadable", "the answer is no chat completion", billed=True) from None
    message, token_usage = choice.message, _parse_usage(body)
    calls = tuple(_parse_tool_call(call, number) for number, call in enumerate(message.tool_calls or ()))
    refused = bool(message.refusal and not message.content and not calls)
    text = (message.refusal if refused else message.content) or ""
    finish_reason = "refusal" if refused else choice.finish_reason or "stop"
    counted = token_usage or TokenUsage()
    return Completion(text, finish_reason, calls, counted.completion_tokens, counted.prompt_tokens), token_usage


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
