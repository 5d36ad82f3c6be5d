"""Renders the tables of docs/log/learning.md from docs/learning.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from sgcd.measure.statistics import t_interval
from sgcd.records import CATEGORIES

Json = dict[str, Any]


def table(result: Json) -> str:
    """Markdown, from the figures alone."""
    return "\n".join(
        [
            *seeds_table(result),
            "",
            *against_table(result),
            "",
            *categories_table(result),
            "",
            *learning_footnotes(result),
        ]
    )


def method_results(result: Json) -> list[tuple[str, Json]]:
    """Each world and method as one name, with its results."""
    return [
        (f"{world}, {method}", method_result)
        for world, world_result in result["worlds"].items()
        for method, method_result in world_result["methods"].items()
    ]


def seeds_table(result: Json) -> list[str]:
    names = ("world, method", "seed", "sampled: start", "end", "difference", "mean on the way", "greedy: difference")
    lines = markdown_row(*names, "calls in error") + markdown_row(*["---"] * 8)
    for name, method_result in method_results(result):
        sampled, greedy = (method_result["modes"][mode]["overall"] for mode in ("sampled", "greedy"))
        for index, seed in enumerate(method_result["seeds"]):
            start, end = seed["start"]["sampled"], seed["end"]["sampled"]
            lines += markdown_row(
                name,
                str(seed["seed"]),
                markdown_interval(start["overall"]),
                markdown_interval(end["overall"]),
                markdown_interval(run_difference(sampled, index), "+"),
                markdown_number(curve_mean(seed["curve"])),
                markdown_interval(run_difference(greedy, index), "+"),
                f"{markdown_percent(start['calls_in_error'])} to {markdown_percent(end['calls_in_error'])}",
            )
        if len(method_result["seeds"]) > 1:
            means = markdown_number(mean_of_present([curve_mean(seed["curve"]) for seed in method_result["seeds"]]))
            lines += markdown_row(
                name,
                "all",
                markdown_number(sampled["b"]),
                markdown_number(sampled["a"]),
                markdown_interval(sampled["difference"], "+"),
                means,
                markdown_interval(greedy["difference"], "+"),
                "",
            )
    return lines


def against_table(result: Json) -> list[str]:
    """SGCD less GRPO at the end, each seed and all of them; seeds are matched."""
    modes_by_world = {
        world: world_result["sgcd - grpo"]
        for world, world_result in result["worlds"].items()
        if world_result["sgcd - grpo"]
    }
    if not modes_by_world:
        return []
    lines = markdown_row("SGCD less GRPO", "seed", "sampled", "greedy") + markdown_row(*["---"] * 4)
    for world, modes in modes_by_world.items():
        sampled, greedy = (modes[mode]["overall"] for mode in ("sampled", "greedy"))
        seeds = [seed["seed"] for seed in result["worlds"][world]["methods"]["sgcd"]["seeds"]]
        for index, seed in enumerate(seeds):
            lines += markdown_row(
                world, str(seed), *(markdown_interval(run_difference(mode, index), "+") for mode in (sampled, greedy))
            )
        if len(seeds) > 1:
            lines += markdown_row(
                world, "all", *(markdown_interval(mode["difference"], "+") for mode in (sampled, greedy))
            )
    return lines


def categories_table(result: Json) -> list[str]:
    names = ("world, method, all seeds", "category", "tasks", "sampled: start", "end")
    lines = markdown_row(*names, "difference", "greedy: difference") + markdown_row(*["---"] * 7)
    for name_of_runs, method_result in method_results(result):
        for category in CATEGORIES:
            sampled, greedy = (method_result["modes"][mode]["categories"][category] for mode in ("sampled", "greedy"))
            lines += markdown_row(
                name_of_runs,
                category,
                str(sampled["tasks"]),
                markdown_number(sampled["b"]),
                markdown_number(sampled["a"]),
                markdown_interval(sampled["difference"], "+"),
                markdown_interval(greedy["difference"], "+"),
            )
    return lines


def learning_footnotes(result: Json) -> list[str]:
    lines: list[str] = []
    for name, method_result in method_results(result):
        sampled, seeds = method_result["modes"]["sampled"]["overall"], method_result["seeds"]
        lower_bounds = [run_difference(sampled, index)["low"] for index in range(len(seeds))]
        above = sum(low is not None and low > 0 for low in lower_bounds)
        broken, rollouts = sum(seed["broken"] for seed in seeds), sum(seed["rollouts"] for seed in seeds)
        minutes = markdown_number(mean_of_present([seed["seconds"] / 60 for seed in seeds]), 1)
        lines.append(
            f"- {name}: {above} of {len(lower_bounds)} intervals of the sampled difference lie above zero; "
            f"{seeds[0]['steps']} steps, {minutes} minutes a run, {broken} of {rollouts} rollouts broken."
        )
        lines += [f"- {name}, seed {seed['seed']}: {'; '.join(seed['health'])}." for seed in seeds if seed["health"]]
    for world, world_result in result["worlds"].items():
        parts = {
            f"{method}, end less start": method_result["modes"]["sampled"]["overall"]
            for method, method_result in world_result["methods"].items()
        }
        if world_result["sgcd - grpo"]:
            parts["SGCD less GRPO"] = world_result["sgcd - grpo"]["sampled"]["overall"]
        intervals = "; ".join(f"{name} {seeds_interval(part)}" for name, part in parts.items())
        lines.append(f"- {world}, sampled, t over seeds: {intervals}.")
    overall = method_results(result)[0][1]["modes"]["sampled"]["overall"]
    difference_of_all, difference_of_run = overall["difference"], overall["runs"][0]
    split = ", ".join(sorted({method_result["split"] for _, method_result in method_results(result)}))
    lines.append(
        f"- Held-out {split} tasks, sampled unless said otherwise; rates have intervals clustered by task, a run's "
        f"differences: {difference_of_run['kind'] or difference_of_run['reason']}, those of all seeds: "
        f"{difference_of_all['kind'] or difference_of_all['reason']}. On the way: mean of the evaluations after the "
        "start."
    )
    return lines


def tuning_table(result: Json) -> str:
    """Sampled success at each point of the grid: the mean of its seeds, each seed, each category."""
    seeds = [run["seed"] for run in result["grid"][0]["runs"]]
    names = ["mixed groups", "a step", "steps", "learning rate", "sampled, mean"]
    names += [f"seed {seed}" for seed in seeds] + [*CATEGORIES, "tokens"]
    lines = markdown_row(*names) + markdown_row(*["---"] * len(names))
    for point in result["grid"]:
        runs = point["runs"]
        ends = [run["end"] for run in runs]
        categories = [mean_of_present([run["categories"][name] for run in runs]) for name in CATEGORIES]
        lines += markdown_row(
            str(point["mixed groups"]),
            str(point["groups"]),
            str(runs[0]["steps"]),
            f"{point['lr']:g}",
            *map(markdown_number, [mean_of_present(ends), *ends, *categories]),
            f"{sum(run['tokens'] for run in runs) / len(runs):.0f}",
        )
    starts = mean_of_present([run["start"] for run in result["grid"][0]["runs"]])
    lines += [
        "",
        f"- Plain world, {result['split']} tasks; the warm-up is {result['warm-up groups']} mixed groups; the ",
    ]
    lines[-1] += f"start has {markdown_number(starts)}."
    return "\n".join(lines)


def seeds_interval(part: Json) -> str:
    """The mean difference of the seeds with its t interval: it holds for these tasks and for other seeds."""
    return markdown_interval(t_interval([difference["value"] for difference in part["runs"]]).to_json(), "+")


def run_difference(part: Json, index: int) -> Json:
    return part["runs"][index]


def curve_mean(curve: Sequence[Sequence[Any]]) -> float | None:
    return mean_of_present([value for step, value in curve if step > 0])


def mean_of_present(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def markdown_interval(estimate: Mapping[str, Any], sign: str = "") -> str:
    if estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:{sign}.3f} (no interval)"
    return f"{estimate['value']:{sign}.3f} [{estimate['low']:{sign}.3f}, {estimate['high']:{sign}.3f}]"


def markdown_number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def markdown_percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def markdown_row(*cells: str) -> list[str]:
    return [f"| {' | '.join(cells)} |"]
