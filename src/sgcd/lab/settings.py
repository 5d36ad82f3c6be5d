"""Settings of the lab's environments."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sgcd.settings import Settings


class LabSettings(Settings):
    """The lab: a small airline with generated tasks and an exact verifier."""

    name: Literal["lab"]
    chatty: Literal["no", "own", "shared"] = "no"
    """Thinking in every turn: none, random words of a vocabulary of their own, or words shared with tools and facts."""
    thinking: Annotated[int, Field(ge=1, le=16)] = 12
    """Number of thinking words per turn in a chatty world."""
    horizon: Annotated[int, Field(ge=1, le=4)] = 1
    """Number of requests of a user, one after the other."""


class LongDeskSettings(Settings):
    """The long desk: several requests in one conversation, long thinking that says nothing, one verdict at the end."""

    name: Literal["long_desk"]
    requests: Annotated[int, Field(ge=1, le=10)] = 4
    """Number of requests of a conversation. All of them must be decided rightly."""
    thinking: Annotated[int, Field(ge=0, le=256, multiple_of=16)] = 64
    """Number of thinking words in every turn, drawn from the words that decide; a number stands before each sixteen."""
    read: bool = False
    """Each request names a number in the thinking, and its call must repeat the word that stands behind it."""

    @model_validator(mode="after")
    def _check_read(self) -> Self:
        if self.read and not self.thinking:
            raise ValueError("read: without thinking there is no word to repeat; expected thinking >= 16, got 0")
        return self
