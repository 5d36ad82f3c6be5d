"""Rewrites a run's references in other ways, and measures how much of the credit depends on them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from sgcd.contrast.leakage.literals import find_literals
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.rewrite import rewrite_references
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.errors import FolderError
from sgcd.lab.reference_effect import compare_reference_arms
from sgcd.learn.policy.load import get_context_window
from sgcd.learn.training.context import RunContext, scoring_forward_config
from sgcd.recipe.schema import Recipe
from sgcd.storage.run_folder import RunFolder
from sgcd.study.reference_sensitivity import (
    OWN_ARM,
    ArmReferences,
    ReferenceCase,
    ScoringContext,
    compare_arm,
    score_references,
)
from sgcd.study.score_groups import ScoringOptions

ProgressPrinter = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivitySizes:
    """How many groups are scored, how many trials are played with each reference, and the seed of both."""

    groups: int
    trials: int
    seed: int


async def measure_sensitivity(
    folder: RunFolder, recipe: Recipe, context: RunContext, *, sizes: SensitivitySizes, on_progress: ProgressPrinter
) -> dict[str, Any]:
    """Rewrite the references, score the same rollouts under every text, and in the lab play under every text."""
    endpoint = context.writer_endpoint
    async with endpoint.connect() if endpoint else nullcontext():
        cases, steps, num_without_reference = await load_cases(folder, context, sizes.groups)
        on_progress(f"{len(cases)} groups of {len(steps)} steps; writing references anew")
        groups, own_references = [case.group for case in cases], [case.own_reference for case in cases]
        arms, causes = await rewrite_references(
            groups, own_references, context.reference_builder, BuiltInWriter(), seed=sizes.seed
        )
    texts_by_case = [[text for arm in arms.values() for text in arm[index]] for index in range(len(cases))]
    on_progress(f"scoring {sum(len(case.group.rollouts) for case in cases)} rollouts under each")
    weighed = score_references(build_scorer(recipe, context), cases, texts_by_case)
    all_arms = {OWN_ARM: [[case.own_reference] for case in cases], **arms}
    arm_metrics = {name: compare_arm(weighed, cases, arm) for name, arm in all_arms.items()}
    played = dict[str, Any]()
    if recipe.environment.name == "lab" and sizes.trials:
        played = await measure_arm_success(context, cases, all_arms, sizes=sizes, on_progress=on_progress)
    return {
        "policy": recipe.policy.start,
        "writer": context.reference_builder.writer.name,
        "steps": steps,
        "groups": len(cases),
        "groups without a reference": num_without_reference,
        "not written": dict(causes.most_common()),
        "calls": endpoint.usage_tracker.pop_metrics().to_json() if endpoint else None,
        "seed": sizes.seed,
        "trials": sizes.trials if played else 0,
        "arms": {name: {**metrics, "played": played.get(name)} for name, metrics in arm_metrics.items()},
        "without": played.get("without"),
    }


async def load_cases(
    folder: RunFolder, context: RunContext, max_groups: int
) -> tuple[list[ReferenceCase], list[int], int]:
    """The latest groups that the run learnt from, with their stored references; their steps; groups without one."""
    cases, steps, num_without_reference, num_mixed = list[ReferenceCase](), list[int](), 0, 0
    for step in reversed(folder.steps_with_rollouts()):
        kept = [group.group for group in folder.read_rollouts(step) if group.is_kept and group.group.is_mixed()]
        rows = {row["task"]: row for row in folder.read_references(step)}
        num_mixed += len(kept)
        for group in kept[: max_groups - len(cases)]:
            row = rows.get(group.task.id) or (await context.reference_builder.build(group)).to_json()
            if "text" not in row:
                num_without_reference += 1
                continue
            literals = find_literals(group, context.reference_builder.chat).union(Literals.from_texts(row["literals"]))
            cases.append(ReferenceCase(group, row["text"], literals))
            steps += [step] if step not in steps else []
    if not num_mixed:
        raise FolderError(f"{folder.path}: no siblings of this run are mixed, so there is nothing to contrast")
    if len(cases) < 2:
        raise FolderError(f"{folder.path}: {len(cases)} groups of this run have a reference; expected at least 2")
    return cases, sorted(steps), num_without_reference


def build_scorer(recipe: Recipe, context: RunContext) -> ScoringContext:
    model, needs = context.policy.model, context.method.needs
    assert needs is not None  # the command refuses other methods
    return ScoringContext(
        model=model,
        reference_builder=context.reference_builder,
        method=context.method,
        options=ScoringOptions(needs, recipe.surrogate, recipe.siblings.limits.tokens, scoring_forward_config(recipe)),
        window=get_context_window(model.config),
    )


async def measure_arm_success(
    context: RunContext,
    cases: Sequence[ReferenceCase],
    arms: ArmReferences,
    *,
    sizes: SensitivitySizes,
    on_progress: ProgressPrinter,
) -> dict[str, Any]:
    """Success in the lab with a reference, for arms with at most one text per group."""
    texts = {
        name: [case_texts[0] if case_texts else "" for case_texts in arm]
        for name, arm in arms.items()
        if max(map(len, arm)) < 2
    }
    on_progress(
        f"playing {len(cases)} tasks, {sizes.trials} trials each, with {len(texts)} kinds of references and without any"
    )
    tasks = [case.group.task for case in cases]
    return await compare_reference_arms(
        tasks,
        texts,
        OWN_ARM,
        trials=sizes.trials,
        chat=context.policy.chat,
        sampler=context.sampler,
        seed=sizes.seed,
    )
