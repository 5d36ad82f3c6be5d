"""Tables with intervals for runs, evaluations and comparisons, and the formats of their numbers."""

from collections.abc import Mapping, Sequence
from re import sub
from typing import Any

from rich import box
from rich.table import Table

from sgcd.measure.health import direction_of_change, format_rate
from sgcd.measure.validity import count_noun
from sgcd.storage.metrics import EndpointUsage, StepMetrics

JsonMapping = Mapping[str, Any]


def evaluation_table(summary: JsonMapping) -> Table:
    """One evaluation: a row for each category, a column for each mode."""
    modes: Mapping[str, JsonMapping] = summary["modes"]
    model = summary.get("model")
    origin = f"played with {model}" if model else f"after step {summary['step']}"
    table = build_table(f"{summary['split']} tasks {origin}", "", "tasks")
    for name in [*(name for mode in modes for name in (mode, "won of")), *floor_column(summary)]:
        table.add_column(name, justify="right", overflow="fold")
    for name in ("all", *_category_names(modes)):
        parts = [_category_summary(modes[mode], name) for mode in modes]
        if parts and parts[0]["tasks"]:
            cells = [
                cell for part in parts for cell in (format_interval(part), f"{part['successes']} of {part['trials']}")
            ]
            table.add_row(name, str(parts[0]["tasks"]), *cells, *floor_column(summary, parts[0]))
    return table


def floor_column(summary: JsonMapping, part: JsonMapping | None = None) -> list[str]:
    """The title of the column with what an agent that does nothing gets, or a part's cell; [] where nobody knows it."""
    if any(mode["overall"].get("floor") is None for mode in summary["modes"].values()):
        return []
    return ["doing nothing" if part is None else format_number(part["floor"])]


def _category_names(modes: Mapping[str, JsonMapping]) -> list[str]:
    """All modes have the same tasks."""
    return [name for mode in [*modes.values()][:1] for name in mode["categories"]]


def change_table(start: JsonMapping, end: JsonMapping, change: JsonMapping) -> Table:
    """The effect of training: both ends of a run on the same tasks, and the paired difference."""
    table = build_table(f"{end['split']} tasks: step {start['step']} against step {end['step']}", "", "tasks")
    for name in ("start", "end", "difference", *floor_column(start)):
        table.add_column(name, justify="right", overflow="fold")
    for mode, mode_change in change["modes"].items():
        for name in ("all", *mode_change["categories"]):
            before, after = _category_summary(start["modes"][mode], name), _category_summary(end["modes"][mode], name)
            if before["tasks"]:
                table.add_row(
                    mode if name == "all" else f" {name}",
                    str(before["tasks"]),
                    format_interval(before),
                    format_interval(after),
                    format_interval(_category_summary(mode_change, name)["difference"], "+"),
                    *floor_column(start, before),
                )
    return table


def describe_change(change: JsonMapping) -> str:
    """The effect of training: the total with its interval, what rose or fell, what did neither, what fell otherwise."""
    mode = "sampled" if "sampled" in change["modes"] else next(iter(change["modes"]))
    total = change["modes"][mode]["overall"]
    if total["a"] is None:
        return f"Nothing is known of success on held-out {change['split']} tasks: every trial broke."
    parts = [
        f"{name} {change_word} from {format_rate(category['b'])} to {format_rate(category['a'])}"
        for name, category in change["modes"][mode]["categories"].items()
        if (change_word := direction_of_change(category))
    ]
    steady = [
        name
        for name, category in change["modes"][mode]["categories"].items()
        if category["a"] is not None and not direction_of_change(category)
    ]
    if parts and steady:
        parts.append(f"{', '.join(steady)} did not clearly change")
    difference, direction = total["difference"], direction_of_change(total) or "did not clearly change,"
    interval = (
        f", 95 % interval {format_number(difference['low'], '+')} to {format_number(difference['high'], '+')}"
        if difference["low"] is not None
        else ", no interval"
    )
    falls = [
        f" Played {other}, {name} fell from {format_rate(category['b'])} to {format_rate(category['a'])}."
        for other, part in change["modes"].items()
        if other != mode
        for name, category in part["categories"].items()
        if direction_of_change(category) == "fell"
    ]
    return (
        f"Success on held-out {change['split']} tasks ({mode}) {direction} from "
        f"{format_rate(total['b'])} to {format_rate(total['a'])} ({format_number(difference['value'], '+')}"
        f"{interval}): {', '.join(parts) or 'no category clearly rose or fell'}.{''.join(falls)}"
    )


def comparison_table(compared: JsonMapping) -> Table:
    """Runs against runs: means of both sides, the paired difference and its p."""
    sides = [", ".join(f"{run['run']}@{run['step']}" for run in compared[side]) for side in ("a", "b")]
    table = build_table(f"{sides[0]}  against  {sides[1]}  ({compared['split']} tasks)", "", "tasks")
    for name in ("first", "second", "difference", "p"):
        table.add_column(name, justify="right", overflow="fold")
    for mode, mode_comparison in compared["modes"].items():
        for name in ("all", *mode_comparison["categories"]):
            part = _category_summary(mode_comparison, name)
            if part["tasks"]:
                table.add_row(
                    mode if name == "all" else f" {name}",
                    str(part["tasks"]),
                    format_number(part["a"]),
                    format_number(part["b"]),
                    format_interval(part["difference"], "+"),
                    "" if part["p"] is None else f"{part['p']:.3f}",
                )
    return table


def evaluation_remarks(summary: JsonMapping) -> list[str]:
    """How the successes of an evaluation came about, one line a mode, how steady they are, and what broke."""
    lines: list[str] = []
    for mode, mode_summary in summary["modes"].items():
        without_tool = ", ".join(
            f"{audit['without_tool']} of {audit['successes']} on {name} tasks"
            for name, audit in mode_summary["audit"].items()
        )
        lines.append(
            f"{mode}: calls in error {format_share(mode_summary['calls_in_error'])}, turns that could not be read "
            f"{format_share(mode_summary['malformed_turns'])}, looping {format_share(mode_summary['looping'])}"
            + (f"; successes without a tool: {without_tool}" if without_tool else "")
        )
        if "scenarios" in mode_summary:
            lines.append(f"{mode}: {_describe_scenarios(mode_summary)}")
        lines += [f"{mode}: {line}" for line in _describe_passes(mode_summary["passes"])]
        broken = mode_summary["broken"]
        if broken["trials"]:
            cause, times = next(iter(broken["causes"].items()))
            trials = count_noun(broken["trials"], "trial")
            sources = ", ".join(f"{count} by the {source}" for source, count in broken["sources"].items())
            lines.append(f"{mode}: {trials} broke and count in no rate ({sources}); {times} of them: {cause}")
    return lines


def describe_cost(cost: JsonMapping) -> str:
    """One line: time, and what each player read and wrote.

    >>> describe_cost({"trials": 4, "seconds": 2.5, "players": {}, "money": 0.5, "money_per_success": 0.25})
    'cost: 4 trials in 2.5 s; 0.5000 spent, 0.2500 a success'
    """
    parts = [f"{count_noun(cost['trials'], 'trial')} in {cost['seconds']:.1f} s"]
    for name, part in cost["players"].items():
        calls = f"{part['calls']:,} calls, " if "calls" in part else ""
        parts.append(f"{name}: {calls}{part['tokens_in']:,} tokens in, {part['tokens_out']:,} out")
    if cost["money"] is not None:
        per_success = cost["money_per_success"]
        parts.append(f"{cost['money']:.4f} spent" + ("" if per_success is None else f", {per_success:.4f} a success"))
    return f"cost: {'; '.join(parts)}"


def _describe_scenarios(mode_summary: JsonMapping) -> str:
    """Tasks and scenarios in percent, as benchmarks with scenarios report them."""
    tasks, scenarios = mode_summary["overall"], mode_summary["scenarios"]
    passed = mode_summary.get("tests_passed")
    return (
        f"task goal completion {format_share(tasks['value'])}, scenario goal completion "
        f"{format_share(scenarios['value'])} ({scenarios['successes']} of {scenarios['trials']})"
        + ("" if passed is None else f", tests passed {format_share(passed)}")
    )


def _describe_passes(passes: Sequence[JsonMapping]) -> list[str]:
    """pass@k and pass^k at the powers of two and at the largest k, where tasks have several trials."""
    chosen = [row for row in passes if row["k"] & (row["k"] - 1) == 0 or row is passes[-1]]
    names = {"pass_at": "pass@k, some of k trials succeed", "pass_hat": "pass^k, all of them do"}
    values = {key: ", ".join(f"{format_number(row[key])} at {row['k']}" for row in chosen) for key in names}
    parts = [f"{name}: {values[key]}" for key, name in names.items()]
    return ["; ".join(parts)] if len(passes) > 1 else []


def format_interval(estimate: JsonMapping, sign: str = "") -> str:
    """.473 [.412, .534]"""
    if estimate["value"] is None:
        return "-"
    value, low, high = (format_number(estimate[name], sign) for name in ("value", "low", "high"))
    return f"{value} [no interval]" if estimate["low"] is None else f"{value} [{low}, {high}]"


def format_number(value: float | None, sign: str = "") -> str:
    """Three decimals, without a zero before the point and without a negative zero."""
    return "-" if value is None else sub(r"^([+-]?)0\.", r"\1.", f"{round(value, 3) + 0.0:{sign}.3f}")


def format_share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def build_table(title: str, *columns: str) -> Table:
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


def _category_summary(mode_summary: JsonMapping, name: str) -> JsonMapping:
    return mode_summary["overall"] if name == "all" else mode_summary["categories"][name]


def describe_calls(usage: EndpointUsage, role: str) -> str:
    """The calls of a step to a model over the network, and their cost; the writer is the model without a name."""
    text = f"{usage.calls} calls" + (f" of the {role}" if role != "writer" else "")
    if usage.cached:
        text += f" and {usage.cached} remembered"
    return text + (f" for {usage.money:.4f}" if usage.money else "")


def describe_usage(rows: Sequence[StepMetrics]) -> list[str]:
    """The usage of every model over the network in a whole run."""
    return [
        line
        for role in ("writer", "user")
        for line in describe_model_usage(role, [row.endpoint_usage[role] for row in rows if role in row.endpoint_usage])
    ]


def describe_model_usage(role: str, usages: Sequence[EndpointUsage]) -> list[str]:
    """The usage of one model: counts, tokens, money, latency."""
    if not usages:
        return []
    num_questions, num_cached = sum(usage.requests for usage in usages), sum(usage.cached for usage in usages)
    num_calls, num_retries = sum(usage.calls for usage in usages), sum(usage.repeated for usage in usages)
    prompt_tokens = sum(usage.tokens.prompt for usage in usages)
    answer_tokens = sum(usage.tokens.answer for usage in usages)
    money = sum(usage.money for usage in usages)
    lines = [
        f"{role}: {num_questions} questions, {num_cached} answered from memory, {num_calls} calls, {num_retries} of "
        "them repetitions",
        f"{role}: {prompt_tokens:,} tokens asked, {answer_tokens:,} answered, {money:.4f} spent",
    ]
    medians = sorted(usage.seconds.median for usage in usages if usage.seconds.median is not None)
    if medians:
        longest = max(usage.seconds.max for usage in usages if usage.seconds.max is not None)
        lines.append(f"{role}: a call took {medians[len(medians) // 2]:.2f} s as a rule, {longest:.2f} s at most")
    return lines
