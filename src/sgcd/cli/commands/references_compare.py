"""sgcd references compare: how much the writer of a run's references matters."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import FolderError, RecipeError
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe
from sgcd.show.sensitivity_tables import sensitivity_tables
from sgcd.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from sgcd.assemble import AssembledRun
    from sgcd.study.reference_sensitivity import ReferenceCase, ScoringContext

SCHEMA = 1


def run_references_compare(run: Path, keys: Sequence[str], groups: int, trials: int, seed: int, as_json: bool) -> None:
    folder = RunFolder.open(run)
    if not folder.steps_with_rollouts():
        raise FolderError(f"{run}: the run has no rollouts/ to write references of anew; they come with its first step")
    policy = latest_policy_path(folder)
    recipe = load_recipe(folder.path / "recipe.yaml", [*keys, *([f"policy.start={policy}"] if policy else [])])
    from sgcd.assemble import assemble

    context = assemble(recipe)
    if context.method.needs is None:
        raise RecipeError(
            f"{run}: {recipe.method.name} reads no reference; to see what one would credit, add method.name=sgcd"
        )
    started = perf_counter()
    result = asyncio.run(measure_sensitivity(folder, recipe, context, groups, trials, seed))
    result = {"schema": SCHEMA, "run": str(run), **result, "seconds": round(perf_counter() - started, 1)}
    if as_json:
        print_json(result)
        return
    for table in sensitivity_tables(result):
        results_console().print(table, soft_wrap=isinstance(table, str))


async def measure_sensitivity(
    folder: RunFolder, recipe: Recipe, context: "AssembledRun", groups: int, trials: int, seed: int
) -> dict[str, Any]:
    """Write anew, score the same rollouts under every text, and in the lab play under every text."""
    from sgcd.contrast.rewrite import rewrite_references
    from sgcd.study.reference_sensitivity import OWN_ARM, compare_arm, score_references

    on_progress, endpoint = progress_console().print, context.writer_endpoint
    async with endpoint.connect() if endpoint else nullcontext():
        cases, steps, num_without_reference = await load_cases(folder, context, groups)
        on_progress(f"{len(cases)} groups of {len(steps)} steps; writing references anew")
        groups_and_texts = [case.group for case in cases], [case.own_reference for case in cases]
        arms, causes = await rewrite_references(*groups_and_texts, context.reference_builder, seed)
    texts_by_case = [[text for arm in arms.values() for text in arm[index]] for index in range(len(cases))]
    on_progress(f"scoring {sum(len(case.group.rollouts) for case in cases)} rollouts under each")
    weighed = score_references(build_scorer(recipe, context), cases, texts_by_case)
    own_arm = {OWN_ARM: [[case.own_reference] for case in cases]}
    arm_metrics = {name: compare_arm(weighed, cases, arm) for name, arm in {**own_arm, **arms}.items()}
    played = await measure_arm_success(recipe, context, cases, {**own_arm, **arms}, trials, seed, on_progress)
    return {
        "policy": recipe.policy.start,
        "writer": context.reference_builder.writer.name,
        "steps": steps,
        "groups": len(cases),
        "groups without a reference": num_without_reference,
        "not written": dict(causes.most_common()),
        "calls": endpoint.usage_tracker.pop_metrics() if endpoint else None,
        "seed": seed,
        "trials": trials if played else 0,
        "arms": {name: {**metrics, "played": played.get(name)} for name, metrics in arm_metrics.items()},
        "without": played.get("without"),
    }


async def load_cases(
    folder: RunFolder, context: "AssembledRun", max_groups: int
) -> tuple[list["ReferenceCase"], list[int], int]:
    """The latest groups that the run learnt from, with the references that it has kept of them."""
    from sgcd.contrast.leakage.literals import find_literals
    from sgcd.contrast.leakage.masking import Literals
    from sgcd.study.reference_sensitivity import ReferenceCase

    cases, steps, num_without_reference, num_mixed = list["ReferenceCase"](), list[int](), 0, 0
    for step in reversed(folder.steps_with_rollouts()):
        kept = [group.group for group in folder.read_rollouts(step) if group.is_kept and group.group.mixed]
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


def build_scorer(recipe: Recipe, context: "AssembledRun") -> "ScoringContext":
    from sgcd.learn.policy.load import get_context_window
    from sgcd.study.reference_sensitivity import ScoringContext

    model: Any = context.policy.model
    scoring_options = (
        recipe.surrogate,
        recipe.sampler.temperature,
        recipe.scoring.micro_batch_tokens,
        recipe.scoring.logits_bytes,
    )
    return ScoringContext(
        model, context.reference_builder, context.method, *scoring_options, get_context_window(model.config)
    )


async def measure_arm_success(
    recipe: Recipe,
    context: "AssembledRun",
    cases: Sequence["ReferenceCase"],
    arms: Any,
    trials: int,
    seed: int,
    on_progress: Any,
) -> dict[str, Any]:
    """For runs of the lab, whose tasks can be played with a reference; of arms with one text for each group."""
    if recipe.environment.name != "lab" or not trials:
        return {}
    from sgcd.lab.reference_effect import compare_reference_arms
    from sgcd.study.reference_sensitivity import OWN_ARM

    texts = {
        name: [case_texts[0] if case_texts else "" for case_texts in arm]
        for name, arm in arms.items()
        if max(map(len, arm)) < 2
    }
    on_progress(
        f"playing {len(cases)} tasks, {trials} trials each, with {len(texts)} kinds of references and without any"
    )
    tasks = [case.group.task for case in cases]
    return await compare_reference_arms(tasks, texts, OWN_ARM, trials, context.policy.chat, context.sampler, seed)


def latest_policy_path(folder: RunFolder) -> Path | None:
    """The run's last policy, else its newest checkpoint, else where it started from."""
    if folder.policy_path.is_dir():
        return folder.policy_path
    steps = folder.checkpoint_steps()
    return folder.checkpoint_path(steps[-1]) if steps else None
