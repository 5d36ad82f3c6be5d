"""sgcd references compare: how much the writer of a run's references matters."""

import asyncio
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from sgcd.cli.commands.references_show import latest_policy_path, open_run_with_rollouts
from sgcd.cli.options import JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import RecipeError


def compare_references(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder that still has its rollouts.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys of its recipe to set, such as those of another writer."),
    ] = None,
    *,
    groups: Annotated[int, typer.Option(min=2, help="How many groups of siblings, from the latest step back.")] = 24,
    trials: Annotated[int, typer.Option(min=0, help="In the lab: trials of each task with each reference.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the inserted errors and of all rollouts.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Rewrite a run's references in other ways, and measure how much of the credit stays.

    The ways: other writers and parts of the text, one pair of siblings, each sibling left out, the next task's
    reference, and more and more wrong statements. The measures: overlap of credited tokens, rank correlation of
    weights, and in the lab success with the reference, with intervals.
    """
    from sgcd.assemble import assemble
    from sgcd.recipe.load import load_recipe
    from sgcd.show.study_tables import sensitivity_tables
    from sgcd.storage.atomic import SCHEMA
    from sgcd.study.writer_sensitivity import SensitivitySizes, measure_sensitivity

    folder = open_run_with_rollouts(run)
    policy = latest_policy_path(folder)
    recipe = load_recipe(folder.path / "recipe.yaml", [*(keys or []), *([f"policy.start={policy}"] if policy else [])])
    context = assemble(recipe)
    if context.method.needs is None:
        raise RecipeError(
            f"{run}: {recipe.method.name} reads no reference; to see what one would credit, add method.name=sgcd"
        )
    started = perf_counter()
    sizes = SensitivitySizes(groups=groups, trials=trials, seed=seed)
    on_progress = progress_console().print
    result = asyncio.run(measure_sensitivity(folder, recipe, context, sizes=sizes, on_progress=on_progress))
    result = {"schema": SCHEMA, "run": str(run), **result, "seconds": round(perf_counter() - started, 1)}
    if json:
        print_json(result)
        return
    for table in sensitivity_tables(result):
        results_console().print(table, soft_wrap=isinstance(table, str))
