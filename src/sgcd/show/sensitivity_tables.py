"""Tables of the effect of the writer of references: change of credit, and success with the reference."""

from collections.abc import Iterator

from rich.table import Table

from sgcd.show.tables import JsonMapping, build_table, format_interval, format_number, format_share


def sensitivity_tables(result: JsonMapping) -> Iterator[Table | str]:
    """Yield tables and the lines between them in reading order."""
    yield _credit_table(result["arms"])
    yield (
        f"{result['groups']} groups of steps {', '.join(map(str, result['steps']))}, scored by {result['policy']}; "
        "each figure is the mean over groups with an interval over groups; overlap: tokens credited under both "
        "references over tokens credited under either; ranks: Spearman's correlation, token by token"
    )
    if result["without"]:
        yield ""
        yield _success_table(result["arms"], result["without"])
        yield f"{result['trials']} fresh plays of each task; differences paired by task"
    if result["groups without a reference"]:
        yield f"{result['groups without a reference']} groups had no reference and are left out"
    if result["not written"]:
        causes = ", ".join(f"{cause} ({count})" for cause, count in result["not written"].items())
        yield f"texts that could not be written: {causes}"
    calls = result["calls"]
    if calls:
        yield f"{calls['calls']} calls to {result['writer']}, {calls['cached']} answers remembered"
    yield f"{result['seconds']:.0f} seconds"


def _credit_table(arms: JsonMapping) -> Table:
    columns = "texts", "same text", "overlap", "ranks of weights", "ranks of divergence", "nats", "credited"
    table = build_table("The same rollouts under other references, against the run's own", "reference", *columns)
    for name, arm in arms.items():
        intervals = (format_interval(arm[figure]) for figure in ("overlap", "weights", "divergences"))
        nats, credited = format_number(arm["divergence"]["value"]), format_share(arm["credited"]["value"])
        table.add_row(name, str(arm["references"]), format_share(arm["same_text"]), *intervals, nats, credited)
    return table


def _success_table(arms: JsonMapping, without: JsonMapping) -> Table:
    table = build_table("Success with the reference", "reference", "tasks", "success", "less without", "less own")
    for name, arm in {"without": {"played": without}, **arms}.items():
        played = arm["played"]
        if played:
            estimates = (played.get(f"less {baseline}") for baseline in ("without", "own"))
            differences = (format_interval(estimate, "+") if estimate else "" for estimate in estimates)
            table.add_row(name, str(played["tasks"]), format_interval(played["success"]), *differences)
    return table
