"""sgcd lab truth: a method held against the true credit of every decision, in one of the lab's worlds or in several."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sgcd.cli.commands.lab import lab_recipe_path
from sgcd.cli.output import print_json, progress_console, results_console
from sgcd.credit.settings import SgcdSettings
from sgcd.errors import RecipeError
from sgcd.recipe.load import load_recipe
from sgcd.show.truth_tables import truth_tables


def run_truth(
    words: Sequence[str], method: str, rollouts: int | None, tasks: int | None, seed: int, as_json: bool
) -> None:
    keys = [word for word in words if "=" in word]
    starts = [word for word in words if "=" not in word] or ["plain"]
    settings = load_method_settings(method, keys)
    from sgcd.lab.warm_starts import WARM_STARTS
    from sgcd.learn.policy.load import load_policy as policy_of
    from sgcd.study.truth_report import default_sizes, run_truth_report

    policies = {name: policy_of(f"lab:{name}" if name in WARM_STARTS else name, "float32") for name in starts}
    size_overrides = {name: number for name, number in (("rollouts", rollouts), ("tasks", tasks)) if number is not None}
    reports, console = {}, progress_console()
    for name, policy in policies.items():
        sizes = replace(default_sizes(Path(name).name), **size_overrides)
        reports[name] = run_truth_report(
            policy, settings, sizes, seed, lambda message, name=name: console.print(f"{name}: {message}")
        )
        if not as_json:
            results_console().print(f"\n{name}", style="bold")
            for part in truth_tables(reports[name]):
                results_console().print(part, soft_wrap=isinstance(part, str))
                if isinstance(part, str):
                    results_console().print()
    if as_json:
        print_json({"schema": 1, "method": method, "starts": reports})


def load_method_settings(method: str, keys: Sequence[str] = ()) -> SgcdSettings:
    """The method as the lab's recipe of that name has it, but for `keys`."""
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
