"""sgcd lab truth: a method compared with the true credit of every decision, in one or several of the lab's worlds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgcd.cli.options import JsonFlag
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.errors import RecipeError
from sgcd.storage.atomic import SCHEMA

if TYPE_CHECKING:
    from sgcd.credit.settings import SgcdSettings


def truth(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="START KEY=VALUE",
            help="Warm starts (plain, chatty, chatty-shared; plain by default) or folders of policies, and keys of the "
            "method to set, such as method.segments.quiet_tokens=1.",
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="A method of recipes/lab that locates credit.")] = "sgcd",
    *,
    rollouts: Annotated[
        int | None, typer.Option(min=16, help="Rollouts to compare with the truth, in groups of 8.")
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=2, help="Mixed held-out tasks for success with a reference.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all rollouts.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Compare a method with the true credit of every decision.

    Continues the rollout from each undecided token many times, and reports how well divergence and weights find the
    tokens that decide, whether references help, where the credit is, and how much the gradients of batches agree. By
    default a plain world takes about five minutes on two cores, a chatty one fifteen.
    """
    keys = [word for word in words or [] if "=" in word]
    starts = [word for word in words or [] if "=" not in word] or ["plain"]
    settings = load_method_settings(method, keys)
    given_sizes = {name: number for name, number in (("rollouts", rollouts), ("tasks", tasks)) if number is not None}
    reports = report_truth(starts, settings, given_sizes, seed=seed, print_tables=not json)
    if json:
        print_json({"schema": SCHEMA, "method": method, "starts": reports})


def report_truth(
    starts: Sequence[str], settings: "SgcdSettings", size_overrides: dict[str, int], *, seed: int, print_tables: bool
) -> dict[str, Any]:
    """One report per start."""
    from sgcd.lab.warm_starts import WARM_STARTS
    from sgcd.learn.policy.load import load_policy
    from sgcd.show.study_tables import truth_tables
    from sgcd.study.truth_report import default_sizes, run_truth_report

    policies = {name: load_policy(f"lab:{name}" if name in WARM_STARTS else name, "float32") for name in starts}
    reports, console = dict[str, Any](), progress_console()
    for name, policy in policies.items():
        sizes = replace(default_sizes(Path(name).name), **size_overrides)
        reports[name] = run_truth_report(
            policy, settings, sizes, seed, lambda message, name=name: console.print(f"{name}: {message}")
        )
        if not print_tables:
            continue
        results_console().print(f"\n{name}", style="bold")
        for part in truth_tables(reports[name]):
            results_console().print(part, soft_wrap=isinstance(part, str))
            if isinstance(part, str):
                results_console().print()
    return reports


def load_method_settings(method: str, keys: Sequence[str] = ()) -> "SgcdSettings":
    """The method's settings in the lab's recipe of that name, with `keys` set."""
    from sgcd.credit.settings import SgcdSettings
    from sgcd.recipe.load import lab_recipe_path, load_recipe

    foreign_key = next((key for key in keys if not key.startswith("method.")), None)
    if foreign_key:
        raise RecipeError(
            f"lab truth: {foreign_key}: only keys of the method can be set, such as method.segments.quiet_tokens=1"
        )
    path = lab_recipe_path(method)
    settings = load_recipe(path, list(keys)).method if path.is_file() else None
    if not isinstance(settings, SgcdSettings):
        raise RecipeError(
            f"lab truth: {method!r} is no method that locates credit and has a recipe in recipes/lab; expected sgcd"
        )
    return settings
