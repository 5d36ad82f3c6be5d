"""Tables of a study's result, for the terminal and as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from sgcd.show.tables import JsonMapping, build_table, format_interval, format_number

_REASON_LENGTH = 160
_OUTCOMES = {
    "end": "success at the end",
    "mean": "mean success after the start",
    "training": "mean success in training",
}
_DIFFERENCE_COLUMNS = ("seeds", "difference", "p", "p, Holm", "detectable")


class TableRows(NamedTuple):
    """A table before it is rendered: its title, its columns, its rows."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def render_terminal(result: JsonMapping) -> Iterator[Table | str]:
    """Tables and the lines between them, in reading order."""
    for part in list_parts(result):
        if isinstance(part, str):
            yield part
        else:
            table = build_table(part.title, *part.columns)
            for row in part.rows:
                table.add_row(*row)
            yield table


def render_markdown(result: JsonMapping) -> str:
    """The same parts as Markdown."""
    blocks: list[str] = []
    lines: list[str] = []
    for part in list_parts(result):
        if isinstance(part, str):
            lines.append(f"- {part}")
            continue
        if lines:
            blocks.append("\n".join(lines))
            lines = []
        head = f"| {' | '.join(part.columns)} |\n|{' --- |' * len(part.columns)}"
        rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in part.rows]
        blocks.append(f"**{part.title}**\n\n" + "\n".join([head, *rows]))
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])


def list_parts(result: JsonMapping) -> Iterator[TableRows | str]:
    """Everything that a result says: tables first, then remarks."""
    if result["tuning"]:
        yield _tuning_table(result)
    yield _success_table(result)
    yield _cost_table(result)
    if categories := [*dict.fromkeys(name for arm in result["arms"].values() for name in arm["categories"])]:
        yield _categories_table(result, categories)
    outcome = _OUTCOMES[result["study"]["outcome"]]
    for compared in result["differences"]:
        if compared["rows"]:
            yield _differences_table(f"Less {compared['less']}: {outcome}", compared["rows"])
    permuted = result["permuted"]
    if permuted["beyond"]:
        yield _permuted_table(result, outcome)
    if permuted["against"]:
        title = f"(Less its own permuted run) less ({permuted['less']} less its own): {outcome}"
        yield _differences_table(title, permuted["against"])
    if result["hypotheses"]:
        yield _hypotheses_table(result["hypotheses"])
    yield from _remarks(result)


def _success_table(result: JsonMapping) -> TableRows:
    whole_run = _whole_run(result)
    rows = [
        (
            name,
            str(len(arm["seeds"])),
            format_number(arm["start"]["value"]),
            format_interval(arm["end"]),
            format_interval(arm["gain"], "+"),
            format_interval(arm[whole_run]),
        )
        for name, arm in result["arms"].items()
    ]
    title = f"Success on {result['split']} tasks, mean over seeds with its t interval"
    columns = ("arm", "seeds", "start", "end", "gain", "mean after the start" if whole_run == "mean" else "in training")
    return TableRows(title, columns, rows)


def _whole_run(result: JsonMapping) -> str:
    """Which mean over a whole run is shown, and tuned by."""
    return "training" if result["study"]["outcome"] == "training" else "mean"


def _cost_table(result: JsonMapping) -> TableRows:
    thresholds = [f"{threshold:g}" for threshold in result["study"]["thresholds"]]
    rows = [
        (
            name,
            str(arm["curve"][-1][0]) if arm["curve"] else "-",
            "-" if arm["tokens"]["value"] is None else f"{arm['tokens']['value']:.0f}",
            format_interval(arm["at_equal_tokens"]),
            *(_describe_reached(arm, threshold) for threshold in thresholds),
        )
        for name, arm in result["arms"].items()
    ]
    columns = ("arm", "steps", "tokens", "success at equal tokens", *(f"step to {_short(one)}" for one in thresholds))
    return TableRows("Updates, generated tokens, and the median step at which success was reached", columns, rows)


def _permuted_table(result: JsonMapping, outcome: str) -> TableRows:
    """What each arm gains with the verifier's verdicts and with permuted ones, and the paired difference."""
    arms = result["arms"]
    rows = [
        (
            row["arm"],
            format_interval(arms[row["arm"]]["gain"], "+"),
            format_interval(arms[f"{row['arm']}-permuted"]["gain"], "+"),
            _format_p(arms[f"{row['arm']}-permuted"]["gain"]["p"]),
            *_difference_cells(row),
        )
        for row in result["permuted"]["beyond"]
    ]
    gains = ("gain by the verifier's verdicts", "gain by permuted ones", "p")
    return TableRows(f"Less its own permuted run: {outcome}", ("arm", *gains, *_DIFFERENCE_COLUMNS), rows)


def _describe_reached(arm: JsonMapping, threshold: str) -> str:
    """The median step, and of how many seeds where not all got there."""
    reached, count = arm["reached"][threshold], len(arm["seeds"])
    if not count or not reached["seeds"]:
        return "-"
    median = "-" if reached["median_step"] is None else f"{reached['median_step']:.0f}"
    return median if reached["seeds"] == count else f"{median} ({reached['seeds']} of {count} seeds)"


def _categories_table(result: JsonMapping, categories: Sequence[str]) -> TableRows:
    rows: list[tuple[str, ...]] = []
    for name, arm in result["arms"].items():
        parts = [arm["categories"].get(category) for category in categories]
        ends = [
            [format_number(part[moment]["value"]) for moment in ("start", "end")] if part else None for part in parts
        ]
        rows.append((name, *(f"{pair[0]} to {pair[1]}" if pair else "-" for pair in ends)))
    return TableRows("By category, from the start to the end", ("arm", *categories), rows)


def _differences_table(title: str, rows: Sequence[JsonMapping]) -> TableRows:
    cells = [(row["arm"], *_difference_cells(row)) for row in rows]
    return TableRows(title, ("arm", *_DIFFERENCE_COLUMNS), cells)


def _difference_cells(row: JsonMapping) -> tuple[str, ...]:
    numbers = (_format_p(row["p"]), _format_p(row["p_corrected"]), format_number(row["detectable"]))
    return (str(row["seeds"]), format_interval(row, "+"), *numbers)


def _hypotheses_table(hypotheses: Sequence[JsonMapping]) -> TableRows:
    rows = [
        (
            one["says"],
            format_interval(one, "+"),
            _format_p(one["p_corrected"]),
            format_number(one["detectable"]),
            one["verdict"],
        )
        for one in hypotheses
    ]
    return TableRows("Hypotheses", ("written down before", "difference", "p, Holm", "detectable", "verdict"), rows)


def _tuning_table(result: JsonMapping) -> TableRows:
    arms = [*dict.fromkeys(row["arm"] for row in result["tuning"])]
    points = [*dict.fromkeys(row["point"] for row in result["tuning"])]
    by_place = {(row["arm"], row["point"]): row for row in result["tuning"]}
    chosen = {
        arm: ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in keys.items())
        for arm, keys in result["chosen"].items()
    }
    rows: list[tuple[str, ...]] = []
    for arm in arms:
        cells = [by_place[arm, point] for point in points]
        texts = [format_number(cell["mean"]) + (" breaks" if cell["breaks"] else "") for cell in cells]
        rows.append((arm, *texts, chosen.get(arm, "-")))
    title = f"Tuning: {_OUTCOMES[_whole_run(result)]}, on seeds of its own"
    return TableRows(title, ("arm", *points, "chosen"), rows)


def _remarks(result: JsonMapping) -> Iterator[str]:
    runs, study = result["runs"], result["study"]
    others = runs["started_and_not_in_the_file"]
    yield (
        f"{runs['finished']} of {runs['planned']} runs have a result; {runs['started']} were started, and "
        f"{runs['started_for_tuning']} for tuning"
        + (f"; {others} more were started under an earlier file" if others else "")
    )
    for reason in dict.fromkeys(missing["reason"] for missing in runs["missing"]):
        names = [f"{row['arm']} seed {row['seed']}" for row in runs["missing"] if row["reason"] == reason]
        yield f"missing: {', '.join(names)}: {reason[:_REASON_LENGTH]}"
    if len(study["seeds"]) < 2:
        yield "one seed: no p-value and no interval; give at least two"
    yield from _edges(result)
    commit = result["committed"]
    place = f"in commit {commit[:7]}" if commit else "in no commit"
    yield f"the study's file was {place} when its first fresh seed started"
    yield (
        "p: two-sided paired t test over seeds; Holm: corrected over the rows of its table; detectable: the true "
        f"difference that these seeds with their spread find with probability {result['power']:g} at "
        f"{result['significance']:g}, uncorrected"
    )
    if result["equal_tokens"] is not None:
        yield f"equal tokens: {result['equal_tokens']}, the fewest of any run, linear between evaluations; so are steps"


def _edges(result: JsonMapping) -> Iterator[str]:
    """What was tuned to the smallest or the largest number of its grid, beyond which it may be better."""
    tuning: JsonMapping = result["study"].get("tuning") or {}
    grid: Mapping[str, Sequence[Any]] = tuning.get("grid", {})
    for key, values in grid.items():
        numbers = [value for value in values if isinstance(value, int | float)]
        for word, edge in (("smallest", min(numbers, default=None)), ("largest", max(numbers, default=None))):
            arms = [arm for arm, keys in result["chosen"].items() if keys.get(key) == edge and len(numbers) > 1]
            if arms:
                yield f"tuned to the {word} {key} of the grid, beyond which they may be better: {', '.join(arms)}"


def _format_p(p: float | None) -> str:
    return "-" if p is None else "<.001" if p < 0.001 else format_number(p)


def _short(threshold: str) -> str:
    return threshold.removeprefix("0")
