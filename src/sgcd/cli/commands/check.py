"""sgcd check: describes what a recipe would run, and plays one task, so that problems show before training."""

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, CommandWithKeys, JsonFlag, RecipeWords
from sgcd.cli.output import print_json, results_console, split_recipe_and_keys
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
def check(words: RecipeWords = None, json: JsonFlag = False) -> None:
    """Describe what a recipe would run, and train nothing; or verify the files of a run: sgcd check RUN.

    With a recipe it loads the policy and the environment, and plays the first task once. With a run's folder it
    compares every file with its checksum and lists what is damaged; then the exit code is 2.
    """
    from sgcd.recipe.load import load_recipe

    path, keys = split_recipe_and_keys(words or [])
    if path is None:
        raise RecipeError("a recipe is needed: sgcd check RECIPE key=value ...")
    if path.is_dir() or not (path.is_file() or path.suffix):
        check_run(path, keys, as_json=json)
        return
    recipe = load_recipe(path, keys)
    (check_on_verl if recipe.engine == "verl" else check_recipe)(recipe, as_json=json)


def check_on_verl(recipe: "Recipe", as_json: bool) -> None:
    """The recipe in verl's words, and what has no counterpart there. No weights are read, and verl is not needed."""
    from sgcd.verl.translate import check_for_verl, translate

    num_prompt_tokens = asyncio.run(check_for_verl(recipe))
    values = translate(recipe, recipe.policy.start, "RUN/recipe.yaml", "RUN")
    if as_json:
        print_json({"schema": SCHEMA, "engine": "verl", "prompt": num_prompt_tokens, "verl": values})
        return
    results_console().print(f"engine       verl, {recipe.verl.nodes} nodes of {recipe.verl.gpus} GPUs")
    results_console().print(f"first task   {num_prompt_tokens} tokens of prompt, room for {recipe.verl.prompt_tokens}")
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


def check_recipe(recipe: "Recipe", as_json: bool) -> None:
    from sgcd.assemble import assemble, collect_facts
    from sgcd.build_tasks import count_trials
    from sgcd.study.memory_check import check_memory

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
    print_json({"schema": SCHEMA, **answer, **describe_endpoints(recipe, context)})


def describe_supervised(recipe: "Recipe", context: "RunContext") -> dict[str, str]:
    """What a supervised start would learn from, where the recipe describes one."""
    from sgcd.learn.policy.load import get_context_window
    from sgcd.learn.supervised.data import load_supervised_data

    if recipe.supervised is None:
        return {}
    window = get_context_window(context.policy.model.config)
    data = load_supervised_data(recipe.supervised, context.reference_builder, window)
    pairs = f"{len(data.reading.pairs)} pairs of {data.reading.num_groups} groups, " if data.reading.pairs else ""
    left_out = f"; {'; '.join(lines)}" if (lines := data.describe_left_out()) else ""
    return {
        "supervised": f"{len(data.data.rollouts)} conversations, {data.data.num_tokens} tokens to learn, {pairs}in "
        f"{data.num_steps(recipe.seed)} steps at learning rate {recipe.supervised.lr:g}{left_out}"
    }


def describe_written(context: "RunContext", rehearsal: "Rollout") -> str:
    """The turns that the policy wrote, as text on one line; a long one loses its middle."""
    from sgcd.text import cut_middle

    decode = context.policy.chat.decode
    turns = [decode(rehearsal.response[turn.start : turn.stop]) for turn in rehearsal.turns]
    return cut_middle(" | ".join(" ".join(turn.split()) for turn in turns), 600) or "nothing"


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


def describe_endpoints(recipe: "Recipe", context: "RunContext") -> dict[str, str]:
    """The models behind endpoints that a run would call, and whether their keys are set."""
    from sgcd.endpoint.client import Endpoint

    model = recipe.evaluation.model
    model_endpoint = Endpoint(model, "evaluation.model") if model else None
    endpoints = {"writer": context.writer_endpoint, "user": context.user_endpoint, "model": model_endpoint}
    return {name: endpoint.describe() for name, endpoint in endpoints.items() if endpoint}


def describe_graded_reward(recipe: "Recipe", rehearsal: "Rollout") -> str:
    """What becomes of a reward between nothing and a success; empty for other rewards."""
    threshold = getattr(recipe.environment, "success", None)
    if threshold is None or not 0 < rehearsal.reward < threshold:
        return ""
    return (
        f"reward {rehearsal.reward:.2g} is below environment.success {threshold:g}: counts as a failure; learned from "
        "as graded"
    )


def describe_teachers(recipe: "Recipe", context: "RunContext") -> str:
    """Which policy is each teacher of the method, and what it reads; empty without teachers."""
    needs, settings = context.method.needs, recipe.teacher
    models = {
        "current": "the policy",
        "average": f"its moving average, which keeps {settings.decay:g} of itself in a step",
        "initial": "the policy as it begins",
        "outside": str(settings.start),
    }
    teachers = needs.teachers if needs else ()
    return "; ".join(f"{models[teacher.model]}, context {teacher.context}" for teacher in teachers)


def describe_surrogate(recipe: "Recipe") -> str:
    """The preset, every key that differs from it, and how often a batch is learned from."""
    from sgcd.measure.validity import count_noun
    from sgcd.settings import flatten_mapping

    surrogate = recipe.surrogate
    preset = flatten_mapping(type(surrogate)(preset=surrogate.preset).model_dump())
    keys = flatten_mapping(surrogate.model_dump()).items()
    apart = [f"{key} {value}" for key, value in keys if key not in preset or preset[key] != value]
    name = surrogate.preset or "the defaults"
    updates = count_noun(recipe.optimizer.updates, "update")
    return f"{name}{' but for ' + ', '.join(apart) if apart else ''}; {updates} a batch"


def describe_sharing(recipe: "Recipe", context: "RunContext", rehearsal: "Rollout") -> str:
    """Whether siblings' common prefixes are computed once, and in how many parts their tree may have to be read."""
    from sgcd.learn.scoring.tree_attention import why_not_shared

    if not recipe.scoring.share:
        return "off: scoring.share is false"
    if reason := why_not_shared(context.policy.model):
        return f"off: {reason}"
    siblings, limit = recipe.siblings, recipe.optimizer.micro_batch_tokens
    num_tokens = len(rehearsal.prompt) + siblings.group_size * siblings.limits.tokens
    parts = f", in parts of at most {limit} tokens" if limit and num_tokens > limit else ""
    return f"common prefixes of siblings once; a group has at most {num_tokens} tokens{parts}"


def describe_recipe(
    recipe: "Recipe", context: "RunContext", rehearsal: "Rollout", *, facts: dict[str, Any], num_trials: int
) -> dict[str, str]:
    """What a recipe would run, in words."""
    siblings, limits, evaluation = recipe.siblings, recipe.siblings.limits, recipe.evaluation
    splits = ", ".join(f"{count} {split}" for split, count in facts["tasks"].items())
    has_pad_token = context.policy.chat.tokenizer.pad_token_id is not None
    pad_note = "" if has_pad_token else "; no pad token, the end of a turn stands in for it"
    user_note = "; the user was not asked" if context.user_endpoint else ""
    return {
        "policy": f"{recipe.policy.start}: {facts['policy']['parameters']:,} parameters, "
        f"{recipe.policy.dtype}{pad_note}",
        "environment": f"{recipe.environment.name}: {splits} tasks",
        "rollouts": f"at most {limits.turns} turns and {limits.tokens} tokens; sampled {recipe.sampler.mode}, "
        f"{recipe.sampler.slots} at a time",
        "rehearsal": f"task {rehearsal.task}: {len(rehearsal.prompt)} tokens of prompt, {len(rehearsal.response)} of "
        f"response in {len(rehearsal.turns)} turns, {rehearsal.end_reason}, reward {rehearsal.reward:g}{user_note}",
        **({"reward": note} if (note := describe_graded_reward(recipe, rehearsal)) else {}),
        "method": " ".join([recipe.method.name, getattr(recipe.method, "class_", "")]).strip(),
        **({"teachers": described} if (described := describe_teachers(recipe, context)) else {}),
        "surrogate": describe_surrogate(recipe),
        **describe_endpoints(recipe, context),
        "training": f"{recipe.steps} steps of {siblings.groups} mixed groups of {siblings.group_size} rollouts, "
        f"learning rate {recipe.optimizer.lr:g}",
        "sharing": describe_sharing(recipe, context, rehearsal),
        "evaluation": f"{num_trials} trials of {evaluation.split} tasks every {evaluation.every} steps"
        if num_trials
        else f"none: there are no {evaluation.split} tasks",
        "machine": f"{facts['machine']['processor']}, threads used: {facts['machine']['threads']}",
    }
