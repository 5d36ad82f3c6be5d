"""The table of what the lab learnt, in Markdown, from the figures in docs/learning.json alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from sgcd.records import CATEGORIES

Json = dict[str, Any]


def table(result: Json) -> str:
    """Markdown, from the figures alone."""
    return "\n".join(
        [*seeds_table(result), "", *against_table(result), "", *categories_table(result), "", *closing(result)]
    )


def ways(result: Json) -> list[tuple[str, Json]]:
    """Each world and method, as one name, with what was found."""
    return [
        (f"{world}, {method}", told)
        for world, both in result["worlds"].items()
        for method, told in both["methods"].items()
    ]


def seeds_table(result: Json) -> list[str]:
    names = ("world, method", "seed", "sampled: start", "end", "difference", "mean on the way", "greedy: difference")
    lines = row(*names, "calls in error") + row(*["---"] * 8)
    for name, told in ways(result):
        sampled, greedy = (told["modes"][mode]["overall"] for mode in ("sampled", "greedy"))
        for at, seed in enumerate(told["seeds"]):
            start, end = seed["start"]["sampled"], seed["end"]["sampled"]
            lines += row(
                name,
                str(seed["seed"]),
                interval(start["overall"]),
                interval(end["overall"]),
                interval(difference(sampled, at), "+"),
                number(area(seed["curve"])),
                interval(difference(greedy, at), "+"),
                f"{percent(start['calls_in_error'])} to {percent(end['calls_in_error'])}",
            )
        if len(told["seeds"]) > 1:
            means = number(mean([area(seed["curve"]) for seed in told["seeds"]]))
            rates, moved = (number(sampled["b"]), number(sampled["a"])), interval(sampled["difference"], "+")
            lines += row(name, "all", *rates, moved, means, interval(greedy["difference"], "+"), "")
    return lines


def against_table(result: Json) -> list[str]:
    """SGCD less GRPO at the end, each seed and all of them; seeds are matched."""
    told = {world: both["sgcd - grpo"] for world, both in result["worlds"].items() if both["sgcd - grpo"]}
    if not told:
        return []
    lines = row("SGCD less GRPO", "seed", "sampled", "greedy") + row(*["---"] * 4)
    for world, modes in told.items():
        sampled, greedy = (modes[mode]["overall"] for mode in ("sampled", "greedy"))
        seeds = [seed["seed"] for seed in result["worlds"][world]["methods"]["sgcd"]["seeds"]]
        for at, seed in enumerate(seeds):
            lines += row(world, str(seed), *(interval(difference(mode, at), "+") for mode in (sampled, greedy)))
        if len(seeds) > 1:
            lines += row(world, "all", *(interval(mode["difference"], "+") for mode in (sampled, greedy)))
    return lines


def categories_table(result: Json) -> list[str]:
    names = ("world, method, all seeds", "category", "tasks", "sampled: start", "end")
    lines = row(*names, "difference", "greedy: difference") + row(*["---"] * 7)
    for way, told in ways(result):
        for name in CATEGORIES:
            sampled, greedy = (told["modes"][mode]["categories"][name] for mode in ("sampled", "greedy"))
            cells = number(sampled["b"]), number(sampled["a"]), interval(sampled["difference"], "+")
            lines += row(way, name, str(sampled["tasks"]), *cells, interval(greedy["difference"], "+"))
    return lines


def closing(result: Json) -> list[str]:
    lines: list[str] = []
    for name, told in ways(result):
        sampled, seeds = told["modes"]["sampled"]["overall"], told["seeds"]
        lows = [difference(sampled, at)["low"] for at in range(len(seeds))]
        above = sum(low is not None and low > 0 for low in lows)
        broken, rollouts = sum(seed["broken"] for seed in seeds), sum(seed["rollouts"] for seed in seeds)
        minutes = number(mean([seed["seconds"] / 60 for seed in seeds]), 1)
        lines.append(
            f"- {name}: {above} of {len(lows)} intervals of the sampled difference lie above zero; "
            f"{seeds[0]['steps']} steps, {minutes} minutes a run, {broken} of {rollouts} rollouts broken."
        )
        lines += [f"- {name}, seed {seed['seed']}: {words}." for seed in seeds for words in seed["health"]]
    of_all = ways(result)[0][1]["modes"]["sampled"]["overall"]["difference"]
    split = ", ".join(sorted({told["split"] for _, told in ways(result)}))
    lines.append(
        f"- Held-out {split} tasks, sampled unless said otherwise; rates have intervals clustered by task, a run's "
        "differences a bootstrap over tasks (BCa), those of all seeds: "
        f"{of_all['kind'] or of_all['reason']}. On the way: mean of the evaluations after the start."
    )
    return lines


def difference(part: Json, at: int) -> Json:
    return part["runs"][at]


def area(curve: Sequence[Sequence[Any]]) -> float | None:
    return mean([value for step, value in curve if step > 0])


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def interval(estimate: Mapping[str, Any], sign: str = "") -> str:
    if estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:{sign}.3f} (no interval)"
    return f"{estimate['value']:{sign}.3f} [{estimate['low']:{sign}.3f}, {estimate['high']:{sign}.3f}]"


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def row(*cells: str) -> list[str]:
    return [f"| {' | '.join(cells)} |"]
