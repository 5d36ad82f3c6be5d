"""Settings of environments and of groups of siblings."""

from typing import Annotated, Literal

from pydantic import Field

from sgcd.endpoint.settings import ServerSettings
from sgcd.settings import Count, NonNegative, ObjectName, Positive, Settings


class UserSettings(ServerSettings):
    """A language model that plays the person described by a row's `user`."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = 1.0
    """Temperature of the user model, which has its own seed in each rollout; null leaves it to the server."""


class CategorySettings(Settings):
    """What the name of a category means."""

    needs_tool: bool
    """Whether successes that called no tool are counted and shown."""


class OwnEnvironmentSettings(Settings):
    """A plain Python class whose public methods are tools."""

    name: Literal["own"]
    class_: Annotated[ObjectName, Field(alias="class")]
    """Where the class is, as module:Class; the current folder is on the path."""
    tasks: str
    """JSON lines, one training task each: id, category, and what the class's reset() takes."""
    dev: str | None = None
    """JSON lines of held-out tasks for validation; without them there is no validation."""
    test: str | None = None
    """JSON lines of held-out tasks that training never looks at."""
    categories: dict[str, CategorySettings] = Field({})
    """Categories of your own beside action, information, transfer and no_action, as {booking: {needs_tool: true}}."""
    system: str = ""
    """The system message."""
    reward: ObjectName | None = None
    """The function that judges a rollout, as module:function, instead of the class's get_reward(). It gets the object
    and the task's row. A row's own verifier comes first."""
    rewards: dict[str, ObjectName] = Field({})
    """Several such functions by name, instead of one; the reward is their weighted sum. See docs/rewards.md."""
    reward_weights: dict[str, float] = Field({})
    """The weight of each named reward, 1 where none is given. Names come from `rewards`, or from a judge that returns
    a mapping from name to number."""
    success: float = 1.0
    """The reward from which on a rollout counts as a success."""
    user: UserSettings | None = None
    """A simulated user: it answers whenever the policy calls no tool; null: such a turn is the policy's last."""


class AirlineSettings(Settings):
    """A domain of tau2-bench, through the benchmark's own package, which `sgcd setup airline` installs apart."""

    name: Literal["airline"]
    domain: Literal["airline", "retail"] = "airline"
    """The domain. Retail tasks that a language model would have to judge are left out."""
    folder: str = ".venv-airline"
    """The folder that `sgcd setup airline` made."""
    user: UserSettings | None = None
    """A simulated user, prompted as the benchmark does; null: a script says the task's wish and leaves when it is
    answered."""


class BfclSettings(Settings):
    """The multi-turn tasks of the Berkeley Function-Calling Leaderboard, which `sgcd setup bfcl` installs apart."""

    name: Literal["bfcl"]
    categories: tuple[Literal["base", "miss_func", "miss_param", "long_context"], ...] = (
        "base",
        "miss_func",
        "miss_param",
        "long_context",
    )
    """The categories whose tasks are played."""
    folder: str = ".venv-bfcl"
    """The folder that `sgcd setup bfcl` made."""


class OpenenvSettings(Settings):
    """An OpenEnv server, which has its own tools and rewards; each rollout has a session of its own."""

    name: Literal["openenv"]
    url: Annotated[str, Field(pattern=r"^(https?|wss?)://")]
    """Where the server is, as http://127.0.0.1:8000."""
    tasks: str
    """JSON lines, one training task each: id, category, prompt, and what the server's reset takes, such as a seed."""
    dev: str | None = None
    """JSON lines of held-out tasks for validation; without them there is no validation."""
    test: str | None = None
    """JSON lines of held-out tasks that training never looks at."""
    categories: dict[str, CategorySettings] = Field({})
    """Categories of your own beside action, information, transfer and no_action, as {booking: {needs_tool: true}}."""
    system: str = ""
    """The system message."""
    success: float = 1.0
    """The sum of the server's rewards from which on a rollout counts as a success."""


class AppWorldSettings(Settings):
    """AppWorld's tasks, through the benchmark's own package, which `sgcd setup appworld` installs apart."""

    name: Literal["appworld"]
    folder: str = ".venv-appworld"
    """The folder that `sgcd setup appworld` made."""


class TextWorldSettings(Settings):
    """Games that TextWorld generates, which `sgcd setup textworld` installs apart."""

    name: Literal["textworld"]
    admissible: bool = False
    """Whether each observation ends with the commands that are possible."""
    folder: str = ".venv-textworld"
    """The folder that `sgcd setup textworld` made."""


class RecordedSettings(Settings):
    """Rollouts that another tool has recorded: `sgcd credit` reads them, and nothing can be played."""

    name: Literal["recorded"]
    files: tuple[str, ...]
    """Files or folders of rollouts."""
    success: float = 1.0
    """The reward from which on a rollout counts as a success."""


EnvironmentSettings = (
    OwnEnvironmentSettings
    | AirlineSettings
    | AppWorldSettings
    | BfclSettings
    | OpenenvSettings
    | TextWorldSettings
    | RecordedSettings
)
"""The union of this room's environments. `name: own` is played by act/environments/own.py."""


class Limits(Settings):
    """What a single rollout may use."""

    turns: Count = 12
    """Turns of the policy."""
    tokens: Count = 512
    """Tokens of the response, the policy's and the environment's together."""
    observation: Count = 12000
    """Characters of one observation that the policy sees; a longer one loses its middle."""
    seconds: Positive = 60.0
    """Time limit for one answer of the environment; a rollout that exceeds it is broken."""


class SiblingsSettings(Settings):
    """How many rollouts of how many tasks make a step, and how long a step searches for mixed groups."""

    groups: Count = 8
    """Mixed groups in a step."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Rollouts of one task."""
    min_reward_gap: NonNegative = 0.0
    """A group is mixed when its best and its worst reward differ by more than this."""
    rounds: Count = 10
    """How often a step takes new tasks before it continues with the mixed groups it has."""
    limits: Limits = Limits()
    """What a single rollout may use."""
