"""sgcd credit: rollouts that another tool has recorded, contrasted and scored."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from re import match
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.options import TYPER_OPTIONS, CommandWithKeys, JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import EmptyResult, RecipeError

if TYPE_CHECKING:
    from sgcd.recipe.schema import Recipe

credit_app = typer.Typer(**TYPER_OPTIONS)


@credit_app.command(cls=CommandWithKeys)
def credit(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ROLLOUTS KEY=VALUE", help="Files or folders of rollouts, and keys to set, such as method.gamma=2."
        ),
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="The folder to make; runs/credit-NAME by default.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy that scores: a folder, or a name on the hub.")] = None,
    no_score: Annotated[
        bool, typer.Option("--no-score", help="Without a model: the contrast, and where siblings part.")
    ] = False,
    success: Annotated[
        float | None, typer.Option(help="The reward from which on a rollout is a success; 1 by default.")
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="How many mixed tasks, from the first on.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a folder; nothing is scored twice.")] = False,
    json: JsonFlag = False,
) -> None:
    """See where the credit of recorded rollouts belongs: references from mixed siblings, weights, and a page.

    Reads chat messages with a reward (JSON or JSON lines), results of tau-bench, tau2-bench, verifiers and Inspect,
    TRL's completions and verl's dumps. Siblings are rows of one task, or of one prompt.
    """
    files = [word for word in words or [] if not match(r"[\w.]+=", word)]
    keys = [word for word in words or [] if word not in files]
    if resume:
        if files or keys or policy or no_score or success is not None or tasks:
            raise RecipeError("--resume: goes on as the folder was begun; give --out FOLDER and nothing else")
        if out is None:
            raise RecipeError("--resume: which folder? give it by --out FOLDER")
        result = credit_into_folder(out, None, None)
    else:
        recipe = build_recipe(files, keys, policy, no_score=no_score, success=success)
        result = credit_into_folder(out or Path("runs") / f"credit-{Path(files[0]).stem}", recipe, tasks)
    if json:
        print_json(result)
    else:
        print_result(result)
    if not result["tasks"]:
        raise EmptyResult(
            f"{result['folder']}: no siblings differ in their rewards ({describe_read(result)}), so there is nothing "
            "to contrast"
        )


def build_recipe(
    files: Sequence[str], keys: Sequence[str], policy: str | None, *, no_score: bool, success: float | None
) -> "Recipe":
    """The recipe of the folder, with every key that was given."""
    from sgcd.recipe.load import load_recipe
    from sgcd.recorded.build import NO_POLICY
    from sgcd.storage.yaml import dump_yaml

    if not files:
        raise RecipeError("which rollouts? sgcd credit FILE --no-score, or sgcd credit FILE --policy FOLDER")
    if no_score == (policy is not None):
        raise RecipeError(
            "who scores? give --policy FOLDER for a policy that scores the rollouts, or --no-score for the contrast "
            "alone"
        )
    data: dict[str, Any] = {
        "version": 1,
        "steps": 1,
        "policy": {"start": policy or NO_POLICY},
        "environment": {"name": "recorded", "files": [*files]},
        "method": {"name": "sgcd" if policy else "grpo"},
    }
    if success is not None:
        data["environment"]["success"] = success
    return load_recipe(dump_yaml(data), keys)


def credit_into_folder(out: Path, recipe: "Recipe | None", tasks: int | None) -> dict[str, Any]:
    """Make the folder or go on with it; the result is what --json prints."""
    from sgcd.recorded.build import create_recorded_folder, open_recorded_run, prepare_recorded_run
    from sgcd.recorded.rows import CREDIT_FILE, write_credit_rows
    from sgcd.show.recorded import recorded_warnings
    from sgcd.show.report import write_report
    from sgcd.storage.atomic import SCHEMA
    from sgcd.storage.lock import lock_run
    from sgcd.storage.run_folder import RunFolder
    from sgcd.storage.verify import resume_command

    def print_line(line: str) -> None:
        progress_console().print(line, soft_wrap=True)

    if recipe is None:
        RunFolder.check_is_run(out)
        prepared = None
    else:
        RunFolder.check_free(out)
        prepared = prepare_recorded_run(recipe, tasks, print_line)
    with lock_run(out):
        run = create_recorded_folder(out, prepared, tasks) if prepared else open_recorded_run(out, print_line)
        try:
            asyncio.run(run.run())
        except KeyboardInterrupt:
            print_line(f"stopped; to go on: {resume_command(run.folder)}")
            raise typer.Exit(130) from None
        summaries = write_credit_rows(run.folder)
        report = write_report(out)
    return {
        "schema": SCHEMA,
        "folder": str(out),
        "credit": str(out / CREDIT_FILE),
        "report": str(report),
        **run.folder.facts["recorded"],
        "left_out": dict(run.left_out),
        "health": recorded_warnings(run.folder.read_metrics()),
        "tasks": [asdict(summary) for summary in summaries],
    }


def describe_read(result: Mapping[str, Any]) -> str:
    return (
        f"{result['usable']} of {result['rows']} rows are rollouts, of {result['all_tasks']} tasks, "
        f"{result['mixed_tasks']} of them with siblings that differ"
    )


def print_result(result: Mapping[str, Any]) -> None:
    from sgcd.show.recorded import build_task_table

    console = results_console()
    console.print(describe_read(result), soft_wrap=True)
    for cause, count in {**result["unusable"], **result["left_out"]}.items():
        console.print(f"not used: {count}, {cause}", soft_wrap=True)
    for line in [*result["notes"], *result["health"]]:
        console.print(line, soft_wrap=True)
    if result["tasks"]:
        console.print(build_task_table(result["tasks"]))
        console.print(f"credit: {result['credit']}\nreport: {result['report']}", soft_wrap=True)
