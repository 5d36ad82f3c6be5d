"""sgcd check: what a recipe would run; one task is played with its policy, so that problems show before training."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sgcd.cli.output import print_json, results_console, split_recipe_and_keys
from sgcd.endpoint.client import Endpoint
from sgcd.errors import RecipeError
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe
from sgcd.records import Rollout

if TYPE_CHECKING:
    from sgcd.assemble import AssembledRun


def run_check(words: Sequence[str], as_json: bool) -> None:
    path, keys = split_recipe_and_keys(words)
    if path is None:
        raise RecipeError("a recipe is needed: sgcd check RECIPE key=value ...")
    recipe = load_recipe(path, keys)
    from sgcd.assemble import assemble
    from sgcd.cli.memory_check import check_memory

    memory_estimate = check_memory(recipe)
    context = assemble(recipe)
    rehearsal = asyncio.run(context.rehearse())
    if as_json:
        recipe_json = recipe.model_dump(mode="json", by_alias=True)
        rehearsal_json = {"task": rehearsal.task, "prompt": len(rehearsal.prompt), "response": len(rehearsal.response)}
        answer = {
            "recipe": recipe_json,
            "trials": context.num_trials(),
            "rehearsal": rehearsal_json,
            "facts": context.collect_facts(),
        }
        answer["memory"] = memory_estimate.to_json()
        answer |= describe_endpoints(recipe, context)
        print_json({"schema": 1, **answer})
    else:
        for name, line in (
            describe_recipe(recipe, context, rehearsal) | {"memory": memory_estimate.describe()}
        ).items():
            results_console().print(f"{name:<12} {line}", soft_wrap=True)


def describe_endpoints(recipe: Recipe, context: "AssembledRun") -> dict[str, str]:
    """Which models would be asked over the network, and whether their keys are there."""
    model = recipe.evaluation.model
    model_endpoint = Endpoint(model, "evaluation.model") if model else None
    endpoints = {"writer": context.writer_endpoint, "user": context.user_endpoint, "model": model_endpoint}
    return {name: endpoint.describe() for name, endpoint in endpoints.items() if endpoint}


def describe_recipe(recipe: Recipe, context: "AssembledRun", rehearsal: Rollout) -> dict[str, str]:
    """What would be run, in words."""
    facts, groups, limits = context.collect_facts(), recipe.siblings, recipe.siblings.limits
    tasks: dict[str, Any] = facts["tasks"]
    evaluation_text = (
        f"{context.num_trials()} trials of {recipe.evaluation.split} tasks every {recipe.evaluation.every} steps"
    )
    splits = ", ".join(f"{count} {split}" for split, count in tasks.items())
    chat = context.policy.chat
    pad_note = "" if chat.tokenizer.pad_token_id is not None else "; no pad token, the end of a turn stands in for it"
    return {
        "policy": f"{recipe.policy.start}: {facts['policy']['parameters']:,} parameters, "
        f"{recipe.policy.dtype}{pad_note}",
        "environment": f"{recipe.environment.name}: {splits} tasks",
        "rollouts": f"at most {limits.turns} turns and {limits.tokens} tokens; sampled {recipe.sampler.mode}, "
        f"{recipe.sampler.slots} at a time",
        "rehearsal": f"task {rehearsal.task}: {len(rehearsal.prompt)} tokens of prompt, {len(rehearsal.response)} of "
        f"response in {len(rehearsal.turns)} turns, {rehearsal.end_reason}, reward {rehearsal.reward:g}"
        + "; the user was not asked"
        * bool(context.user_endpoint),
        "method": recipe.method.name,
        **describe_endpoints(recipe, context),
        "training": f"{recipe.steps} steps of {groups.groups} mixed groups of {groups.group_size} rollouts, learning rate "
        f"{recipe.optimizer.lr:g}",
        "evaluation": evaluation_text
        if context.num_trials()
        else f"none: there are no {recipe.evaluation.split} tasks",
        "machine": f"{facts['machine']['processor']}, threads used: {facts['machine']['threads']}",
    }
