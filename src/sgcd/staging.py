"""From a recipe to where its tasks are played, and by whom besides the policy; without torch."""

from sgcd.act.environment import Stage
from sgcd.act.own import own_stage
from sgcd.act.settings import OwnEnvironment
from sgcd.act.user import Absent, Simulated, User
from sgcd.endpoint.ask import Endpoint
from sgcd.lab.world import lab_stage
from sgcd.recipe import Recipe


def stage_of(recipe: Recipe, user: Endpoint | None = None) -> Stage:
    """Without an endpoint a simulated user is nobody: it greets and leaves, so that nothing is called."""
    environment = recipe.environment
    if not isinstance(environment, OwnEnvironment):
        return lab_stage(environment)
    told = environment.user
    plays: User | None = None if told is None else Simulated(user, told.temperature) if user else Absent()
    return own_stage(environment, plays)


def user_of(recipe: Recipe) -> Endpoint | None:
    """The endpoint of the simulated user, where the recipe has one."""
    environment = recipe.environment
    if not isinstance(environment, OwnEnvironment) or environment.user is None:
        return None
    return Endpoint(environment.user, "environment.user")
