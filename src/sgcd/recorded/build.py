"""Builds what `sgcd credit` works with: a new folder or one to go on with, its rollouts, its writer and its policy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sgcd.act.settings import RecordedSettings
from sgcd.build_tasks import build_writer, build_writer_endpoint
from sgcd.chat.words import TOKENIZER_FOLDER, WORDS_FILE, WordChat, load_words
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.credit.methods import build_method
from sgcd.endpoint.client import check_endpoints
from sgcd.errors import FolderError, RecipeError
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe, dump_recipe
from sgcd.recorded.files import find_recorded_files
from sgcd.recorded.groups import RolloutIndex, index_rollouts
from sgcd.recorded.points import PointFinder
from sgcd.recorded.run import BATCH_TASKS, ProgressLine, RecordedRun
from sgcd.storage.provenance import collect_provenance
from sgcd.storage.run_folder import RunFolder

NO_POLICY = "none"
"""`policy.start` in the recipe of a folder that no policy scores."""
_NO_WINDOW = 2**31


def prepare_recorded_run(recipe: Recipe, max_tasks: int | None, on_progress: ProgressLine) -> RecordedRun:
    """Read the files, and load the policy where there is one. Nothing is written."""
    return _build(recipe, _index_files(recipe), max_tasks, on_progress)


def create_recorded_folder(path: Path, run: RecordedRun, max_tasks: int | None) -> RecordedRun:
    """Make the folder of a run that was prepared."""
    recipe = run.recipe.model_copy(update={"steps": max(1, -(-len(run.tasks) // BATCH_TASKS))})
    facts: dict[str, Any] = {**collect_provenance(1), "recorded": _count_rows(recipe, run.index, max_tasks)}
    if run.scorer:
        facts["policy"] = {"start": recipe.policy.start, "template": run.chat.template_hash}
    folder = RunFolder.create(path, dump_recipe(recipe), facts)
    if run.scorer:
        run.chat.save(path / TOKENIZER_FOLDER)
    return replace(run, folder=folder, recipe=recipe)


def open_recorded_run(path: Path, on_progress: ProgressLine) -> RecordedRun:
    """A folder that was begun. Its files must be as they were."""
    folder = RunFolder.open(path)
    if folder.kind != "recorded":
        raise FolderError(f"{path}: sgcd credit did not make this folder; name another one by --out")
    recipe = load_recipe(path / "recipe.yaml")
    index = _index_files(recipe)
    started = folder.facts["recorded"]
    if index.fingerprint() != started["fingerprint"]:
        raise FolderError(
            f"{path}: the rollouts in {', '.join(_settings(recipe).files)} have changed since it was begun; restore "
            "them, or begin another folder"
        )
    run = replace(_build(recipe, index, started["max_tasks"], on_progress), folder=folder)
    if isinstance(run.chat, WordChat) and (path / WORDS_FILE).is_file():
        run = replace(run, chat=load_words(path), builder=replace(run.builder, chat=load_words(path)))
    return run


def _build(recipe: Recipe, index: RolloutIndex, max_tasks: int | None, on_progress: ProgressLine) -> RecordedRun:
    if recipe.reference.writer.name == "oracle":
        raise RecipeError(
            "reference.writer.name=oracle: knows the truth of the lab alone; expected built-in, trace or llm"
        )
    if recipe.control != "none":
        raise RecipeError(f"control={recipe.control}: a control is trained; leave it at none")
    method = build_method(recipe.method)
    endpoint = build_writer_endpoint(recipe.reference.writer)
    check_endpoints({"endpoint": endpoint} if endpoint else {})
    writer = PointFinder(build_writer(recipe.reference.writer, method, endpoint))
    reference, min_gap = recipe.reference, recipe.siblings.min_reward_gap
    parts: dict[str, Any] = {
        "folder": None,
        "recipe": recipe,
        "index": index,
        "tasks": index.mixed(min_gap)[:max_tasks],
        "method": method,
        "finder": writer,
        "writer_endpoint": endpoint,
        "on_progress": on_progress,
    }
    if recipe.policy.start == NO_POLICY:
        if method.needs or recipe.method.name in ("entropy", "surprisal"):
            raise RecipeError(
                f"method.name={recipe.method.name}: needs a policy's scores; give --policy FOLDER, or leave out "
                "method.name"
            )
        chat = WordChat()
        builder = ReferenceBuilder(writer, chat, reference.budget, reference.min_tokens, min_gap)
        return RecordedRun(**parts, chat=chat, builder=builder, window=_NO_WINDOW)
    from sgcd.assemble import load_teacher_policies
    from sgcd.learn.policy.load import get_context_window, load_trainable_policy
    from sgcd.learn.training.context import scoring_forward_config
    from sgcd.recorded.score import PolicyScorer

    policy = load_trainable_policy(recipe.policy, recipe.seed)
    builder = ReferenceBuilder(writer, policy.chat, reference.budget, reference.min_tokens, min_gap)
    policies = load_teacher_policies(recipe, method, policy)
    scorer = PolicyScorer(policy, method, builder, scoring_forward_config(recipe), policies)
    window = get_context_window(policy.model.config)
    return RecordedRun(**parts, chat=policy.chat, builder=builder, window=window, scorer=scorer)


def _index_files(recipe: Recipe) -> RolloutIndex:
    return index_rollouts(find_recorded_files(Path(file) for file in _settings(recipe).files))


def _settings(recipe: Recipe) -> RecordedSettings:
    environment = recipe.environment
    if not isinstance(environment, RecordedSettings):
        raise RecipeError(
            f"environment.name={environment.name}: sgcd credit reads recorded rollouts; leave out environment.name"
        )
    return environment


def _count_rows(recipe: Recipe, index: RolloutIndex, max_tasks: int | None) -> dict[str, Any]:
    """What was read and what could not be used, for the folder's facts."""
    best = max(max(one.rewards) for one in index.siblings.values())
    success = _settings(recipe).success
    notes = (
        [
            f"no reward reaches {success:g} (the best is {best:g}): better rewards are contrasted with worse; "
            "--success sets what is a success"
        ]
        if best < success
        else []
    )
    return {
        "rows": index.num_rows,
        "usable": index.num_usable,
        "all_tasks": len(index.siblings),
        "mixed_tasks": len(index.mixed(recipe.siblings.min_reward_gap)),
        "max_tasks": max_tasks,
        "success": success,
        "unusable": dict(index.unusable),
        "notes": notes,
        "fingerprint": index.fingerprint(),
    }
