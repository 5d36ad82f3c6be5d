"""Recorded rollouts as an environment: `sgcd credit` reads them; there is nothing to play."""

from sgcd.act.environment import TaskSuite
from sgcd.act.settings import RecordedSettings
from sgcd.act.user import User
from sgcd.errors import RecipeError


def recorded_tasks(settings: RecordedSettings, user: User | None = None) -> TaskSuite:
    """Refuse to play."""
    raise RecipeError(
        f"environment.name=recorded: recorded rollouts cannot be played; see their credit by sgcd credit "
        f"{' '.join(settings.files)}, or name an environment to train in"
    )
