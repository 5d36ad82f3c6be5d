"""Builds a recipe's tasks, its simulated user, its writer and its endpoint evaluation, without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sgcd.act.environment import TaskSuite
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import count_prompt_tokens
from sgcd.act.settings import UserSettings
from sgcd.act.user import EndpointUser, SilentUser, User
from sgcd.chat import Chat
from sgcd.contrast.settings import LlmWriterSettings, WriterSettings
from sgcd.contrast.writers import Writer
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.contrast.writers.llm import LanguageModelWriter
from sgcd.contrast.writers.trace import TraceWriter
from sgcd.credit.methods import Method
from sgcd.endpoint.client import Endpoint, connect_endpoints
from sgcd.errors import RecipeError
from sgcd.lab.long_desk.world import build_long_desk_task_suite
from sgcd.lab.settings import LabSettings, LongDeskSettings
from sgcd.lab.tasks import build_lab_task_suite
from sgcd.measure.evaluate import SelectTrials, evaluate_endpoint_model, held_out_tasks, list_trials
from sgcd.measure.settings import ModelSettings
from sgcd.measure.trial_rows import TrialRow
from sgcd.recipe.schema import Recipe
from sgcd.records import Rollout
from sgcd.seeds import derive_seed


def build_task_suite(recipe: Recipe, user_endpoint: Endpoint | None = None) -> TaskSuite:
    """The tasks of the recipe's environment: `name: own` is `own_tasks` in act/environments/own.py.

    Without an endpoint the simulated user greets and leaves, so that no model is called.
    """
    environment = recipe.environment
    if isinstance(environment, LabSettings):
        return build_lab_task_suite(environment)
    if isinstance(environment, LongDeskSettings):
        return build_long_desk_task_suite(environment)
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


def build_writer(settings: WriterSettings, method: Method, endpoint: Endpoint | None) -> Writer:
    """Failures are named only where the divergence is taken between two teachers that both read of them."""
    names_failures = method.needs is not None and method.needs.compare_with == "swapped"
    if endpoint:
        return LanguageModelWriter(endpoint, names_failures)
    return TraceWriter() if settings.name == "trace" else BuiltInWriter(names_failures)


def build_writer_endpoint(settings: WriterSettings, section: str = "reference.writer") -> Endpoint | None:
    """`section` names the settings in messages."""
    return Endpoint(settings, section) if isinstance(settings, LlmWriterSettings) else None


def count_trials(recipe: Recipe, task_suite: TaskSuite) -> int:
    """How many trials one evaluation has."""
    return len(list_trials(held_out_tasks(task_suite, recipe.evaluation), recipe.evaluation))


async def first_prompt_tokens(recipe: Recipe, chat: Chat) -> int:
    """Tokens of the first training task's prompt; 0 where the environment cannot open it. No model is called."""
    task_suite = build_task_suite(recipe)
    task = task_suite.splits["train"][0]
    recorder = RolloutRecorder(task, 0, derive_seed(recipe.seed, "prompt", task.id))
    environment = task_suite.environment_factory()
    return await count_prompt_tokens(recorder, environment, chat=chat, limits=recipe.siblings.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointEvaluation:
    """The objects that an evaluation of a model behind an endpoint needs. There is no policy."""

    recipe: Recipe
    settings: ModelSettings
    task_suite: TaskSuite
    model_endpoint: Endpoint
    user_endpoint: Endpoint | None

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        return {"model": self.model_endpoint, **({"user": self.user_endpoint} if self.user_endpoint else {})}

    async def evaluate(
        self,
        folder: Path | None = None,
        *,
        select_trials: SelectTrials = list,
        on_trial: Callable[[TrialRow, Rollout], None] | None = None,
    ) -> list[tuple[TrialRow, Rollout]]:
        """Each trial's row and its conversation. In a folder each endpoint has a journal."""
        recipe = self.recipe
        journals = {name: folder / f"{name}-calls.jsonl" for name in self.endpoints} if folder else {}
        async with connect_endpoints(self.endpoints, journals):
            return await evaluate_endpoint_model(
                self.task_suite,
                self.model_endpoint,
                self.settings,
                limits=recipe.siblings.limits,
                settings=recipe.evaluation,
                seed=recipe.seed,
                select_trials=select_trials,
                on_trial=on_trial,
            )


def build_endpoint_evaluation(recipe: Recipe) -> EndpointEvaluation:
    settings = recipe.evaluation.model
    if settings is None:
        raise RecipeError(
            "evaluation.model: missing; to evaluate a model behind an endpoint say where it is, such as "
            "evaluation.model='{base_url: http://127.0.0.1:8000/v1, model: NAME}'; to evaluate a policy name its folder"
        )
    user_endpoint = build_user_endpoint(recipe)
    return EndpointEvaluation(
        recipe=recipe,
        settings=settings,
        task_suite=build_task_suite(recipe, user_endpoint),
        model_endpoint=Endpoint(settings, "evaluation.model"),
        user_endpoint=user_endpoint,
    )
