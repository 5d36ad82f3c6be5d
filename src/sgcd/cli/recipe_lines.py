"""What `sgcd check` says of a recipe, line by line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgcd.learn.training.context import RunContext
    from sgcd.recipe.schema import Recipe
    from sgcd.records import Rollout


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
