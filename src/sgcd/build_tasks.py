"""From a recipe to where its tasks are played, and by whom besides the policy; without torch."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sgcd.act.environment import TaskSuite
from sgcd.act.settings import UserSettings
from sgcd.act.user import EndpointUser, SilentUser, User
from sgcd.endpoint.client import Endpoint
from sgcd.errors import RecipeError
from sgcd.lab.settings import LabSettings
from sgcd.lab.world import lab_tasks
from sgcd.measure.evaluate import held_out_tasks, list_trials
from sgcd.measure.evaluate_endpoint import evaluate_endpoint_model
from sgcd.measure.settings import ModelSettings
from sgcd.measure.trial_rows import TrialRow
from sgcd.recipe.schema import Recipe
from sgcd.records import Rollout


def build_task_suite(recipe: Recipe, user_endpoint: Endpoint | None = None) -> TaskSuite:
    """The tasks of the recipe's environment: `name: own` is `own_tasks` in act/environments/own.py.

    Without an endpoint the simulated user greets and leaves, so that no model is called.
    """
    environment = recipe.environment
    if isinstance(environment, LabSettings):
        return lab_tasks(environment)
    user_settings = _user_settings(recipe)
    user: User | None = (
        None
        if user_settings is None
        else EndpointUser(user_endpoint, user_settings.temperature)
        if user_endpoint
        else SilentUser()
    )
    module = import_module(f"sgcd.act.environments.{environment.name}")
    return getattr(module, f"{environment.name}_tasks")(environment, user)


def build_user_endpoint(recipe: Recipe) -> Endpoint | None:
    """The endpoint of the simulated user, where the recipe has one."""
    user_settings = _user_settings(recipe)
    return Endpoint(user_settings, "environment.user") if user_settings else None


def _user_settings(recipe: Recipe) -> UserSettings | None:
    return getattr(recipe.environment, "user", None)


@dataclass(frozen=True, slots=True)
class EndpointEvaluation:
    """What it takes to evaluate a model that is no policy."""

    recipe: Recipe
    settings: ModelSettings
    task_suite: TaskSuite
    model_endpoint: Endpoint
    user_endpoint: Endpoint | None

    def check_ready(self) -> None:
        """Refuse what would fail at the first call; nothing is called."""
        for endpoint in self.endpoints.values():
            endpoint.check_ready()

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        return {"model": self.model_endpoint, **({"user": self.user_endpoint} if self.user_endpoint else {})}

    def num_trials(self) -> int:
        return len(list_trials(held_out_tasks(self.task_suite, self.recipe.evaluation), self.recipe.evaluation))

    @asynccontextmanager
    async def open_endpoints(self, folder: Path | None) -> AsyncGenerator[None, None]:
        """Both may be asked inside; in a folder each has a journal."""
        async with AsyncExitStack() as stack:
            for name, endpoint in self.endpoints.items():
                await stack.enter_async_context(endpoint.connect(folder and folder / f"{name}-calls.jsonl"))
            yield

    async def evaluate(self, folder: Path | None = None) -> list[tuple[TrialRow, Rollout]]:
        """Every trial's row, and what was said in it."""
        recipe = self.recipe
        async with self.open_endpoints(folder):
            limits = recipe.siblings.limits
            return await evaluate_endpoint_model(
                self.task_suite, self.model_endpoint, self.settings, limits, recipe.evaluation, recipe.seed
            )

    def pop_endpoint_usage(self) -> dict[str, Any]:
        """What the models were asked, and what that cost."""
        return {name: endpoint.usage_tracker.pop_metrics() for name, endpoint in self.endpoints.items()}


def build_endpoint_evaluation(recipe: Recipe) -> EndpointEvaluation:
    settings = recipe.evaluation.model
    if settings is None:
        raise RecipeError(
            "evaluation.model: missing; to evaluate a model behind an endpoint say where it is, such as "
            "evaluation.model='{base_url: http://127.0.0.1:8000/v1, model: NAME}'; to evaluate a policy name its folder"
        )
    user_endpoint = build_user_endpoint(recipe)
    return EndpointEvaluation(
        recipe, settings, build_task_suite(recipe, user_endpoint), Endpoint(settings, "evaluation.model"), user_endpoint
    )
