"""sgcd lab truth: a method held against the true credit of every decision, in one of the lab's worlds or in several."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sgcd.cli.answer import print_json, progress, results
from sgcd.cli.labs import recipe
from sgcd.credit.settings import Sgcd
from sgcd.errors import RecipeError
from sgcd.recipe import load
from sgcd.show.truth import truth_tables


def truth(words: Sequence[str], method: str, rollouts: int | None, tasks: int | None, seed: int, as_json: bool) -> None:
    keys = [word for word in words if "=" in word]
    starts = [word for word in words if "=" not in word] or ["plain"]
    told = settings_of(method, keys)
    from sgcd.lab.findings import find, sizes_of
    from sgcd.lab.start import STARTS
    from sgcd.learn.policy import load as policy_of

    policies = {name: policy_of(f"lab:{name}" if name in STARTS else name, "float32") for name in starts}
    given = {name: number for name, number in (("rollouts", rollouts), ("tasks", tasks)) if number is not None}
    found, console = {}, progress()
    for name, policy in policies.items():
        sizes = replace(sizes_of(Path(name).name), **given)
        found[name] = find(policy, told, sizes, seed, lambda said, name=name: console.print(f"{name}: {said}"))
        if not as_json:
            results().print(f"\n{name}", style="bold")
            for one in truth_tables(found[name]):
                results().print(one, soft_wrap=isinstance(one, str))
                if isinstance(one, str):
                    results().print()
    if as_json:
        print_json({"schema": 1, "method": method, "starts": found})


def settings_of(method: str, keys: Sequence[str] = ()) -> Sgcd:
    """The method as the lab's recipe of that name has it, but for `keys`."""
    other = next((key for key in keys if not key.startswith("method.")), None)
    if other:
        raise RecipeError(f"lab truth: {other}: only keys of the method can be set, such as method.segments.reset=1")
    path = recipe(method)
    told = load(path, list(keys)).method if path.is_file() else None
    if not isinstance(told, Sgcd):
        raise RecipeError(
            f"lab truth: {method!r} is no method that locates credit and has a recipe in recipes/lab; expected sgcd"
        )
    return told
