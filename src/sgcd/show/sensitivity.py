"""How much the writer of references matters, as tables: credit that stays, and success with the reference."""

from collections.abc import Iterator

from rich.table import Table

from sgcd.show.tables import Numbers, headed, interval, number, share


def sensitivity_tables(found: Numbers) -> Iterator[Table | str]:
    """Tables, and lines between them, in the order in which they are to be read."""
    yield _credit(found["arms"])
    yield (
        f"{found['groups']} groups of steps {', '.join(map(str, found['steps']))}, scored by {found['policy']}; "
        "each figure is the mean over groups with an interval over groups; overlap: tokens credited under both "
        "references over tokens credited under either; ranks: Spearman's correlation, token by token"
    )
    if found["without"]:
        yield ""
        yield _success(found["arms"], found["without"])
        yield f"{found['trials']} fresh plays of each task; differences paired by task"
    if found["groups without a reference"]:
        yield f"{found['groups without a reference']} groups had no reference and are left out"
    if found["not written"]:
        causes = ", ".join(f"{cause} ({count})" for cause, count in found["not written"].items())
        yield f"texts that could not be written: {causes}"
    calls = found["calls"]
    if calls:
        yield f"{calls['calls']} calls to {found['writer']}, {calls['cached']} answers remembered"
    yield f"{found['seconds']:.0f} seconds"


def _credit(arms: Numbers) -> Table:
    columns = "texts", "same text", "overlap", "ranks of weights", "ranks of divergence", "nats", "credited"
    table = headed("The same rollouts under other references, against the run's own", "reference", *columns)
    for name, arm in arms.items():
        both = (interval(arm[figure]) for figure in ("overlap", "weights", "divergences"))
        nats, credited = number(arm["divergence"]["value"]), share(arm["credited"]["value"])
        table.add_row(name, str(arm["references"]), share(arm["same_text"]), *both, nats, credited)
    return table


def _success(arms: Numbers, without: Numbers) -> Table:
    table = headed("Success with the reference", "reference", "tasks", "success", "less without", "less own")
    for name, arm in {"without": {"played": without}, **arms}.items():
        played = arm["played"]
        if played:
            found = (played.get(f"less {other}") for other in ("without", "own"))
            differences = (interval(one, "+") if one else "" for one in found)
            table.add_row(name, str(played["tasks"]), interval(played["success"]), *differences)
    return table
