"""From a recipe to where its tasks are played, and by whom besides the policy; without torch."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgcd.act.environment import Stage
from sgcd.act.own import own_stage
from sgcd.act.settings import OwnEnvironment
from sgcd.act.user import Absent, Simulated, User
from sgcd.endpoint.ask import Endpoint
from sgcd.errors import RecipeError
from sgcd.lab.world import lab_stage
from sgcd.measure.evaluate import held_out, plan
from sgcd.measure.plain import evaluate_model
from sgcd.measure.rows import Row
from sgcd.measure.settings import ModelSettings
from sgcd.recipe import Recipe
from sgcd.records import Rollout


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


@dataclass(frozen=True, slots=True)
class Plain:
    """What it takes to evaluate a model that is no policy."""

    recipe: Recipe
    settings: ModelSettings
    stage: Stage
    model: Endpoint
    user: Endpoint | None

    def ready(self) -> None:
        """Refuse what would fail at the first call; nothing is called."""
        for endpoint in self.endpoints.values():
            endpoint.ready()

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        return {"model": self.model, **({"user": self.user} if self.user else {})}

    def trials(self) -> int:
        return len(plan(held_out(self.stage, self.recipe.evaluation), self.recipe.evaluation))

    @asynccontextmanager
    async def opened(self, folder: Path | None) -> AsyncGenerator[None, None]:
        """Both may be asked inside; in a folder each has a journal."""
        async with AsyncExitStack() as open_ones:
            for name, endpoint in self.endpoints.items():
                await open_ones.enter_async_context(endpoint.opened(folder and folder / f"{name}-calls.jsonl"))
            yield

    async def evaluate(self, folder: Path | None = None) -> list[tuple[Row, Rollout]]:
        """Every trial's row, and what was said in it."""
        told = self.recipe
        async with self.opened(folder):
            limits = told.siblings.limits
            return await evaluate_model(self.stage, self.model, self.settings, limits, told.evaluation, told.seed)

    def asked(self) -> dict[str, Any]:
        """What the models were asked, and what that cost."""
        return {name: endpoint.account.split() for name, endpoint in self.endpoints.items()}


def plain_of(recipe: Recipe) -> Plain:
    settings = recipe.evaluation.model
    if settings is None:
        raise RecipeError(
            "evaluation.model: missing; to evaluate a model behind an endpoint say where it is, such as "
            "evaluation.model='{base_url: http://127.0.0.1:8000/v1, model: NAME}'; to evaluate a policy name its folder"
        )
    user = user_of(recipe)
    return Plain(recipe, settings, stage_of(recipe, user), Endpoint(settings, "evaluation.model"), user)
