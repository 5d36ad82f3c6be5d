"""What `sgcd lab truth` found out about a policy and a method, as tables: help, place, direction, shares, gradients."""

from collections.abc import Iterator, Mapping

from rich.table import Table

from sgcd.show.tables import Numbers, headed, interval, number, share

PAIR = ("own", "shuffled", "own - shuffled")


def truth_tables(found: Numbers) -> Iterator[Table | str]:
    """Tables, and lines between them, in the order in which they are to be read."""
    sizes, truth = found["sizes"], found["truth"]
    yield _heeding(found["reference"])
    yield f"{sizes['mixed']} mixed of {sizes['tasks tried']} held-out tasks, {sizes['trials']} trials each"
    yield _counts(truth)
    rule = found["definition"]
    yield (
        f"{truth['rollouts']} rollouts of {truth['groups']} tasks, {truth['tokens']} tokens and {truth['literals']} of "
        f"them masked literals; measured: likeliest token below {rule['top below']}, {rule['continuations']} plays on "
        f"each side; decisive: beyond {rule['errors']:g} standard errors (by chance {truth['decisive by chance']})"
    )
    titles = {
        "all": "Decisive tokens against all other tokens",
        "measured": "Decisive tokens against other measured tokens",
        "places": "Places where this choice or a sibling's was decisive, against all other tokens",
    }
    for name, title in titles.items():
        yield _ranking(found["location"][name], title)
    yield _direction(found["direction"])
    yield _shares(found["credit"], found["credit, published"])
    for rule in ("", ", published"):
        credit, met = found[f"credit{rule}"], found[f"decisive tokens{rule}"]
        mean = number(credit["mean weight"])
        told = f"weight above one{rule}: {share(credit['credited tokens'])} of tokens; mean weight {mean}"
        could = ", ".join(f"{name} {share(met[name])}" for name in met) if met else ""
        yield f"{told}; decisive tokens that could be a spike: {could}" if could else told
    for name, title in (("raw", "as they are"), ("scaled", "each parameter scaled as Adam does")):
        yield _gradients(found["gradients"][name], f"Gradients of batches agree, {title} (mean cosine)")
    gradients = found["gradients"]
    pairs = f"pairs of batches of {gradients['batch']} of {gradients['groups']} tasks"
    yield f"{pairs}; {found['seconds']:.0f} seconds in all"


def _heeding(reference: Numbers) -> Table:
    table = headed("Success where siblings mix", "reference", "success", "less without", "own less")
    arms = {
        "without": ("", "own - without"),
        "shuffled": ("shuffled - without", "own - shuffled"),
        "own": ("own - without", ""),
    }
    for arm, differences in arms.items():
        table.add_row(arm, interval(reference[arm]), *(interval(reference[d], "+") if d else "" for d in differences))
    return table


def _counts(truth: Numbers) -> Table:
    kinds = [kind for kind in truth["measured"] if kind == "all" or truth["measured"][kind]]
    table = headed("Tokens that decide", "", *kinds)
    for name in ("measured", "decisive"):
        table.add_row(name, *(str(truth[name][kind]) for kind in kinds))
    return table


def _ranking(location: Mapping[str, Numbers | None], title: str) -> Table:
    table = headed(title, "", *PAIR)
    for score, figures in location.items():
        for kind in ("auroc", "average precision") if figures else ():
            some: Numbers = figures[kind] if figures else {}
            cells = [interval(some[arm], "+" if "-" in arm else "") if arm in some else "" for arm in PAIR]
            table.add_row(f"{score}, {'AUROC' if kind == 'auroc' else 'precision'}", *cells)
    return table


def _direction(direction: Numbers | None) -> Table:
    table = headed("Decisive tokens at which the sign is the truth's", "sign of", "share")
    for name, estimate in (direction or {}).items():
        table.add_row(name, interval(estimate))
    return table


def _shares(credit: Numbers, published: Numbers) -> Table:
    table = headed("Where the credit is", "", "of the credit", "published", "of the tokens")
    for name, both in credit["shares"].items():
        cells = share(both["credit"]), share(published["shares"][name]["credit"]), share(both["tokens"])
        table.add_row(name, *cells)
    return table


def _gradients(arms: Mapping[str, Numbers], title: str) -> Table:
    table = headed(title, "weights", "agreement", "less GRPO's")
    for name, figures in arms.items():
        table.add_row(
            name, interval(figures["agreement"]), "" if name == "grpo" else interval(figures["less grpo"], "+")
        )
    return table
