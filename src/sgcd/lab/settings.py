"""Settings of the lab's world."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.settings import Settings


class LabSettings(Settings):
    """The lab: a small airline with generated tasks and an exact verifier."""

    name: Literal["lab"]
    chatty: Literal["no", "own", "shared"] = "no"
    """Thinking before every turn: none, random words of their own vocabulary, or words shared with tools and facts."""
    thinking: Annotated[int, Field(ge=1, le=16)] = 12
    """How many thinking words a turn has in a chatty world."""
    horizon: Annotated[int, Field(ge=1, le=4)] = 1
    """How many requests a user brings, one after the other."""
