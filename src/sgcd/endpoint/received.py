"""What a server sent, read as a chat completion."""

from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from sgcd.endpoint.account import Use
from sgcd.endpoint.failures import Failure

Tokens = Annotated[int, Field(ge=0, le=100_000_000)]


class Message(BaseModel):
    content: str | None = None


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


def received(body: bytes) -> tuple[str, str, Use | None]:
    """Text, why it ended, and the tokens that it took if the server says so."""
    try:
        choice = Completion.model_validate_json(body).choices[0]
    except ValidationError:
        raise Failure("unreadable", "the answer is no chat completion", billed=True) from None
    return choice.message.content or "", choice.finish_reason or "stop", used(body)


def used(body: bytes) -> Use | None:
    try:
        usage = Used.model_validate_json(body).usage
    except ValidationError:
        return None
    return Use(usage.prompt_tokens, usage.completion_tokens)
