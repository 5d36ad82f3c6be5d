"""What a run, an evaluation or a comparison came to, as tables with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from sgcd.measure.health import ASKED
from sgcd.records import CATEGORIES

Numbers = Mapping[str, Any]


def evaluation_table(summary: Numbers) -> Table:
    """One evaluation: a row for each category, a column for each mode."""
    modes: Mapping[str, Numbers] = summary["modes"]
    who = summary.get("model")
    played = f"played with {who}" if who else f"after step {summary['step']}"
    table = headed(f"{summary['split']} tasks {played}", "", "tasks")
    for mode in modes:
        table.add_column(mode, justify="right", overflow="fold")
        table.add_column("won of", justify="right", overflow="fold")
    for name in ("all", *CATEGORIES):
        parts = [_part(modes[mode], name) for mode in modes]
        if parts and parts[0]["tasks"]:
            cells = [cell for part in parts for cell in (interval(part), f"{part['successes']} of {part['trials']}")]
            table.add_row(name, str(parts[0]["tasks"]), *cells)
    return table


def change_table(start: Numbers, end: Numbers, change: Numbers) -> Table:
    """What training did: both ends of a run on the same tasks, and the paired difference."""
    table = headed(f"{end['split']} tasks: step {start['step']} against step {end['step']}", "", "tasks")
    for name in ("start", "end", "difference"):
        table.add_column(name, justify="right", overflow="fold")
    for mode, both in change["modes"].items():
        for name in ("all", *CATEGORIES):
            before, after = _part(start["modes"][mode], name), _part(end["modes"][mode], name)
            if before["tasks"]:
                cells = interval(before), interval(after), interval(_part(both, name)["difference"], "+")
                table.add_row(mode if name == "all" else f" {name}", str(before["tasks"]), *cells)
    return table


def comparison_table(compared: Numbers) -> Table:
    """Runs against runs: means of both sides, the paired difference and its p."""
    sides = [", ".join(f"{run['run']}@{run['step']}" for run in compared[side]) for side in ("a", "b")]
    table = headed(f"{sides[0]}  against  {sides[1]}  ({compared['split']} tasks)", "", "tasks")
    for name in ("first", "second", "difference", "p"):
        table.add_column(name, justify="right", overflow="fold")
    for mode, both in compared["modes"].items():
        for name in ("all", *CATEGORIES):
            part = _part(both, name)
            if part["tasks"]:
                p = "" if part["p"] is None else f"{part['p']:.3f}"
                cells = number(part["a"]), number(part["b"]), interval(part["difference"], "+"), p
                table.add_row(mode if name == "all" else f" {name}", str(part["tasks"]), *cells)
    return table


def remarks(summary: Numbers) -> list[str]:
    """How the successes of an evaluation came about, one line a mode, and what broke."""
    lines: list[str] = []
    for mode, told in summary["modes"].items():
        bare = ", ".join(
            f"{told['audit'][name]['without_tool']} of {told['audit'][name]['successes']} on {name} tasks"
            for name in ("information", "action")
        )
        lines.append(
            f"{mode}: calls in error {share(told['calls_in_error'])}, turns that could not be read "
            f"{share(told['malformed_turns'])}, looping {share(told['looping'])}; successes without a tool: {bare}"
        )
        broken = told["broken"]
        if broken["trials"]:
            cause, times = next(iter(broken["causes"].items()))
            lines.append(f"{mode}: {broken['trials']} trials broke and are left out, {times} of them by: {cause}")
    return lines


def interval(estimate: Numbers, sign: str = "") -> str:
    """.473 [.412, .534]"""
    if estimate["value"] is None:
        return "-"
    value, low, high = (number(estimate[name], sign) for name in ("value", "low", "high"))
    return f"{value} [no interval]" if estimate["low"] is None else f"{value} [{low}, {high}]"


def number(value: float | None, sign: str = "") -> str:
    """Three places, no zero before the point, and none that is less than nothing."""
    return "-" if value is None else f"{round(value, 3) + 0.0:{sign}.3f}".replace("0.", ".", 1)


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def headed(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column, justify="right" if column == "tasks" else "left", overflow="fold")
    return table


def _part(told: Numbers, name: str) -> Numbers:
    return told["overall"] if name == "all" else told["categories"][name]


def calls(told: Mapping[str, Any], who: str = "writer") -> str:
    """What a model over the network was asked in a step, and what that cost; the writer's is the one without a name."""
    said = f"{told['calls']} calls" + (f" of the {who}" if who != "writer" else "")
    if told["cached"]:
        said += f" and {told['cached']} remembered"
    return said + (f" for {told['money']:.4f}" if told["money"] else "")


def spent(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What models over the network were asked in a whole run."""
    return [line for key, who in ASKED.items() for line in spent_by(who, [row[key] for row in rows if row.get(key)])]


def spent_by(who: str, told: Sequence[Mapping[str, Any]]) -> list[str]:
    """What one of them was asked: counts, tokens, money, latency."""
    if not told:
        return []
    counts = ("asked", "cached", "calls", "repeated")
    asked, cached, made, repeated = (sum(each[name] for each in told) for name in counts)
    prompt, answer = (sum(each["tokens"][name] for each in told) for name in ("prompt", "answer"))
    money = sum(each["money"] for each in told)
    medians = sorted(each["seconds"]["median"] for each in told if each["seconds"]["median"] is not None)
    said = [
        f"{who}: {asked} questions, {cached} answered from memory, {made} calls, {repeated} of them repetitions",
        f"{who}: {prompt:,} tokens asked, {answer:,} answered, {money:.4f} spent",
    ]
    if medians:
        longest = max(each["seconds"]["max"] for each in told if each["seconds"]["max"] is not None)
        said.append(f"{who}: a call took {medians[len(medians) // 2]:.2f} s as a rule, {longest:.2f} s at most")
    return said
