"""sgcd check: describes what a recipe would run, and plays one task, so that problems show before training."""

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, CommandWithKeys, JsonFlag, RecipeWords
from sgcd.cli.output import print_json, results_console, split_recipe_and_keys
from sgcd.cli.recipe_lines import (
    describe_endpoints,
    describe_recipe,
    describe_sharing,
    describe_supervised,
    describe_written,
)
from sgcd.errors import EnvironmentFault, FolderError, RecipeError
from sgcd.storage.atomic import SCHEMA

if TYPE_CHECKING:
    from sgcd.chat import Chat
    from sgcd.learn.policy.load import Policy
    from sgcd.learn.training.context import RunContext
    from sgcd.recipe.schema import Recipe
    from sgcd.records import Rollout

_logger = logging.getLogger(__name__)
_MAX_UNKNOWN_SHARE = 0.05
"""Share of a task's words that the tokenizer may not know before `check` warns."""
check_app = typer.Typer(**TYPER_OPTIONS)


@check_app.command(cls=CommandWithKeys)
def check(
    words: RecipeWords = None,
    json: JsonFlag = False,
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="INPUTS",
            help="What a step would cost, by speeds of your machine and lengths of your tasks, such as '{sampled: "
            "2000, read: 30000, prompt: 3000, response: 4000}': tokens a second that are sampled and read, tokens of a "
            "prompt and of a response. More in docs/scale.md.",
        ),
    ] = None,
) -> None:
    """Describe what a recipe would run, and train nothing; or verify the files of a run: sgcd check RUN.

    With a recipe it loads the policy and the environment, and plays the first task once. With a run's folder it
    compares every file with its checksum and lists what is damaged; then the exit code is 2.
    """
    from sgcd.recipe.load import load_recipe

    path, keys = split_recipe_and_keys(words or [])
    if path is None:
        raise RecipeError("a recipe is needed: sgcd check RECIPE key=value ...")
    if path.is_dir() or not (path.is_file() or path.suffix):
        if cost:
            raise RecipeError(f"--cost: only goes with a recipe; {path} is a folder, whose files are verified")
        check_run(path, keys, as_json=json)
        return
    recipe = load_recipe(path, keys)
    (check_on_verl if recipe.engine == "verl" else check_recipe)(recipe, cost, as_json=json)


def cost_section(recipe: "Recipe", cost: str | None, *, as_json: bool) -> dict[str, Any]:
    """What a step would cost, where its inputs are given: seconds by part, or one line."""
    from sgcd.study.step_cost import describe_step_cost, estimate_grpo_cost, estimate_step_cost, read_cost_inputs

    if cost is None:
        return {}
    inputs = read_cost_inputs(cost)
    if not as_json:
        return {"cost": describe_step_cost(recipe, inputs)}
    estimates = {"step": estimate_step_cost(recipe, inputs), "grpo": estimate_grpo_cost(recipe, inputs)}
    return {"cost": {name: {**asdict(one), "total": one.total} for name, one in estimates.items()}}


def check_on_verl(recipe: "Recipe", cost: str | None, as_json: bool) -> None:
    """The recipe in verl's words, and what has no counterpart there. No weights are read, and verl is not needed."""
    from sgcd.verl.translate import check_for_verl, translate

    cost_lines = cost_section(recipe, cost, as_json=as_json)
    num_prompt_tokens = asyncio.run(check_for_verl(recipe))
    values = translate(recipe, recipe.policy.start, "RUN/recipe.yaml", "RUN")
    if as_json:
        print_json({"schema": SCHEMA, "engine": "verl", "prompt": num_prompt_tokens, "verl": values, **cost_lines})
        return
    results_console().print(f"engine       verl, {recipe.verl.nodes} nodes of {recipe.verl.gpus} GPUs")
    results_console().print(f"first task   {num_prompt_tokens} tokens of prompt, room for {recipe.verl.prompt_tokens}")
    for name, line in cost_lines.items():
        results_console().print(f"{name:<12} {line}", soft_wrap=True)
    for key, value in values.items():
        results_console().print(f"{key}={value}", soft_wrap=True, markup=False, highlight=False)


def check_run(path: Path, keys: list[str], as_json: bool) -> None:
    from sgcd.storage.verify import verify_run

    for key in keys:
        raise RecipeError(f"{key}: only goes with a recipe; {path} is a folder, whose files are verified")
    report = verify_run(path)
    if as_json:
        print_json({"schema": SCHEMA, "run": str(path), **asdict(report)})
    else:
        for problem in report.damage:
            results_console().print(problem, soft_wrap=True)
        results_console().print(f"verified: {report.num_verified} files; not verified: {report.num_unverified}")
    if report.damage:
        command = resume_command_of(path)
        raise FolderError(
            f"{path}: damage was found {len(report.damage)} times; restore what is listed from a copy, or go on from "
            f"the last whole checkpoint: {command} --fall-back"
        )


def resume_command_of(path: Path) -> str:
    """The command that goes on with a run; that of training where its facts are damaged."""
    from sgcd.storage.run_folder import RunFolder
    from sgcd.storage.verify import resume_command

    try:
        return resume_command(RunFolder.open(path))
    except FolderError:
        return f"sgcd train --run {path} --resume"


def check_recipe(recipe: "Recipe", cost: str | None, as_json: bool) -> None:
    from sgcd.assemble import assemble, collect_facts
    from sgcd.build_tasks import count_trials
    from sgcd.study.memory_check import check_memory

    cost_lines = cost_section(recipe, cost, as_json=as_json)
    memory_fit = check_memory(recipe)
    given, recipe = recipe, memory_fit.fill_in(recipe)
    context = assemble(recipe)
    rehearsal = asyncio.run(rehearse(recipe, context))
    warn_of_unknown_words(rehearsal, context.policy.chat)
    facts, num_trials = collect_facts(recipe, context), count_trials(recipe, context.task_suite)
    if not as_json:
        lines = describe_recipe(recipe, context, rehearsal, facts=facts, num_trials=num_trials)
        for name, line in (
            lines
            | describe_supervised(recipe, context)
            | {"wrote": describe_written(context, rehearsal), "memory": memory_fit.describe()}
            | {"batches": memory_fit.describe_micro_batches(given)}
            | cost_lines
        ).items():
            results_console().print(f"{name:<12} {line}", soft_wrap=True)
        return
    answer = {
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "trials": num_trials,
        "rehearsal": {
            "task": rehearsal.task,
            "prompt": len(rehearsal.prompt),
            "response": len(rehearsal.response),
            "wrote": describe_written(context, rehearsal),
        },
        "facts": facts,
        "sharing": describe_sharing(recipe, context, rehearsal),
        "memory": memory_fit.to_json(),
    }
    print_json({"schema": SCHEMA, **answer, **describe_endpoints(recipe, context), **cost_lines})


async def rehearse(recipe: "Recipe", context: "RunContext") -> "Rollout":
    """Play the first training task once, as training would. Refuses a task that breaks.

    No model behind an endpoint is called: the simulated user greets and leaves.
    """
    from dataclasses import replace

    from sgcd.act.recorder import RolloutRecorder
    from sgcd.act.siblings import play_cohort
    from sgcd.build_tasks import build_task_suite
    from sgcd.seeds import derive_seed

    task_suite = build_task_suite(recipe)
    play_context = replace(context.play_context(recipe.siblings.limits), task_suite=task_suite)
    task = task_suite.splits["train"][0]
    recorder = RolloutRecorder(task, 0, derive_seed(recipe.seed, "rehearsal", task.id))
    [rollout] = await play_cohort([recorder], play_context)
    if rollout.broken:
        raise EnvironmentFault(f"environment: task {task.id} breaks ({rollout.broken}); mend what it names")
    return rollout


def warn_of_unknown_words(rehearsal: "Rollout", chat: "Chat") -> None:
    """Warn when the tokenizer has only its unknown token for many words of a task that the policy did not write."""
    unknown_id = chat.tokenizer.unk_token_id
    texts = [str(message.get("content", "")) for message in rehearsal.messages if message["role"] != "assistant"]
    words = " ".join(texts).split()
    unknown = [word for word in words if unknown_id is not None and unknown_id in chat.encode_text(word)]
    if len(unknown) > _MAX_UNKNOWN_SHARE * len(words):
        examples = ", ".join(map(repr, [*dict.fromkeys(unknown)][:3]))
        _logger.warning(
            f"task {rehearsal.task}: {len(unknown)} of {len(words)} words are unknown to the policy's tokenizer, such "
            f"as {examples}; the policy cannot tell them apart: choose a policy whose tokenizer knows them"
        )


async def check_window(recipe: "Recipe", policy: "Policy") -> int:
    """Refuse a policy whose window cannot hold the first task; else return the tokens of its prompt."""
    from sgcd.build_tasks import first_prompt_tokens
    from sgcd.study.memory_check import check_prompt_fits

    prompt_tokens = await first_prompt_tokens(recipe, policy.chat)
    check_prompt_fits(recipe, policy.model.config, prompt_tokens)
    return prompt_tokens
