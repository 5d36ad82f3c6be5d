"""sgcd check: what a recipe would run; one task is played with its policy, so that problems show before training."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sgcd.cli.answer import print_json, recipe_and_keys, results
from sgcd.endpoint.ask import Endpoint
from sgcd.errors import RecipeError
from sgcd.recipe import Recipe, load
from sgcd.records import Rollout

if TYPE_CHECKING:
    from sgcd.assemble import Assembly


def check(words: Sequence[str], as_json: bool) -> None:
    path, keys = recipe_and_keys(words)
    if path is None:
        raise RecipeError("a recipe is needed: sgcd check RECIPE key=value ...")
    recipe = load(path, keys)
    from sgcd.assemble import assemble
    from sgcd.cli.fitting import fit

    fits = fit(recipe)
    built = assemble(recipe)
    rehearsal = asyncio.run(built.rehearse())
    if as_json:
        told = recipe.model_dump(mode="json", by_alias=True)
        played = {"task": rehearsal.task, "prompt": len(rehearsal.prompt), "response": len(rehearsal.response)}
        answer = {"recipe": told, "trials": built.trials(), "rehearsal": played, "facts": built.facts()}
        answer["memory"] = fits.plain()
        answer |= models(recipe, built)
        print_json({"schema": 1, **answer})
    else:
        for name, line in (lines(recipe, built, rehearsal) | {"memory": fits.words()}).items():
            results().print(f"{name:<12} {line}", soft_wrap=True)


def models(recipe: Recipe, built: "Assembly") -> dict[str, str]:
    """Which models would be asked over the network, and whether their keys are there."""
    model = recipe.evaluation.model
    evaluated = Endpoint(model, "evaluation.model") if model else None
    both = {"writer": built.endpoint, "user": built.user, "model": evaluated}
    return {name: endpoint.told() for name, endpoint in both.items() if endpoint}


def lines(recipe: Recipe, built: "Assembly", rehearsal: Rollout) -> dict[str, str]:
    """What would be run, in words."""
    facts, groups, limits = built.facts(), recipe.siblings, recipe.siblings.limits
    tasks: dict[str, Any] = facts["tasks"]
    measured = f"{built.trials()} trials of {recipe.evaluation.split} tasks every {recipe.evaluation.every} steps"
    splits = ", ".join(f"{count} {split}" for split, count in tasks.items())
    chat = built.policy.chat
    named = "" if chat.tokenizer.pad_token_id is not None else "; no pad token, the end of a turn stands in for it"
    return {
        "policy": f"{recipe.policy.start}: {facts['policy']['parameters']:,} parameters, {recipe.policy.dtype}{named}",
        "environment": f"{recipe.environment.name}: {splits} tasks",
        "rollouts": f"at most {limits.turns} turns and {limits.tokens} tokens; sampled {recipe.sampler.mode}, "
        f"{recipe.sampler.slots} at a time",
        "rehearsal": f"task {rehearsal.task}: {len(rehearsal.prompt)} tokens of prompt, {len(rehearsal.response)} of "
        f"response in {len(rehearsal.turns)} turns, {rehearsal.ending}, reward {rehearsal.reward:g}"
        + "; the user was not asked"
        * bool(built.user),
        "method": recipe.method.name,
        **models(recipe, built),
        "training": f"{recipe.steps} steps of {groups.groups} mixed groups of {groups.size} rollouts, learning rate "
        f"{recipe.optimizer.lr:g}",
        "evaluation": measured if built.trials() else f"none: there are no {recipe.evaluation.split} tasks",
        "machine": f"{facts['machine']['processor']}, threads used: {facts['machine']['threads']}",
    }
