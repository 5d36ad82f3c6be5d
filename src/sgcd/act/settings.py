"""Settings of environments, limits and siblings."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.endpoint.settings import ServerSettings
from sgcd.settings import Settings

Count = Annotated[int, Field(ge=1)]


class UserSettings(ServerSettings):
    """A language model that plays the person whom a row's `user` describes."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    """At which the user is sampled, with a seed of its own in each rollout; null leaves it to the server."""


class OwnEnvironmentSettings(Settings):
    """A plain Python class whose public methods are tools."""

    name: Literal["own"]
    class_: Annotated[str, Field(alias="class", pattern=r"^[\w.]+:\w+$")]
    """Where the class is, as module:Class; the current folder is on the path."""
    tasks: str
    """JSON lines, one training task each: id, category, and what the class's reset() takes."""
    dev: str | None = None
    """JSON lines of held-out tasks for validation; without it nothing is validated."""
    test: str | None = None
    """JSON lines of held-out tasks that training never looks at."""
    system: str = ""
    """The system message, authored by the harness."""
    success: float = 1.0
    """The reward from which on a rollout counts as a success."""
    user: UserSettings | None = None
    """A simulated user: it answers whenever the policy calls no tool; null: such a turn is the policy's last."""


class Limits(Settings):
    """What a single rollout may use."""

    turns: Count = 12
    """Turns of the policy."""
    tokens: Count = 512
    """Tokens of the response, the policy's and the environment's together."""
    observation: Count = 12000
    """Characters of one observation that the policy gets to see; the rest is cut from the middle."""
    seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time for a single answer of the environment; past it the rollout is broken."""


class SiblingsSettings(Settings):
    """How many rollouts of how many tasks make a step, and how long mixed groups are looked for."""

    groups: Count = 8
    """Mixed groups in a step."""
    size: Annotated[int, Field(ge=2)] = 8
    """Rollouts of one task."""
    rounds: Count = 10
    """How often new tasks are taken before the step goes on with what it has."""
    limits: Limits = Limits()
    """What a single rollout may use."""
