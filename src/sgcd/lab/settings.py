"""Settings of the lab's environment."""

from typing import Annotated, Literal

from pydantic import Field

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
