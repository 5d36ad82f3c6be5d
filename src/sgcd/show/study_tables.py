"""The tables of `sgcd lab truth`, `sgcd lab measure` and `sgcd references compare`."""

from collections.abc import Iterator, Mapping

from rich.table import Table

from sgcd.show.tables import JsonMapping, build_table, format_interval, format_number, format_share

_REFERENCE_ARMS = ("own", "shuffled", "own - shuffled")


def truth_tables(result: JsonMapping) -> Iterator[Table | str]:
    """Yield tables and the lines between them in reading order."""
    sizes, truth = result["sizes"], result["truth"]
    yield _reference_table(result["reference"])
    yield f"{sizes['mixed']} mixed of {sizes['tasks tried']} held-out tasks, {sizes['trials']} trials each"
    yield _counts_table(truth)
    rule = result["definition"]
    yield (
        f"{truth['rollouts']} rollouts of {truth['groups']} tasks, {truth['tokens']} tokens and {truth['literals']} of "
        f"them masked literals; measured: likeliest token below {rule['top below']}, {rule['continuations']} plays on "
        f"each side; decisive: beyond {rule['errors']:g} standard errors (by chance {truth['decisive by chance']})"
    )
    titles = {
        "all": "Decisive tokens against all other tokens",
        "undecided": "Decisive tokens against others at which the policy is undecided",
        "measured": "Decisive tokens against other measured tokens",
        "places": "Places where this choice or a sibling's was decisive, against all other tokens",
    }
    for name, title in titles.items():
        yield _ranking_table(result["location"][name], title)
    yield _direction_table(result["direction"])
    yield _shares_table(result["credit"], result["credit, published"])
    for rule in ("", ", published"):
        credit, spike_conditions = result[f"credit{rule}"], result[f"decisive tokens{rule}"]
        mean = format_number(credit["mean weight"])
        text = f"weight above one{rule}: {format_share(credit['credited tokens'])} of tokens; mean weight {mean}"
        spike_shares = (
            ", ".join(f"{name} {format_share(spike_conditions[name])}" for name in spike_conditions)
            if spike_conditions
            else ""
        )
        yield f"{text}; decisive tokens that could be a spike: {spike_shares}" if spike_shares else text
    for name, title in (("raw", "as they are"), ("scaled", "each parameter scaled as Adam does")):
        yield _gradients_table(result["gradients"][name], f"Gradients of batches agree, {title} (mean cosine)")
    gradients = result["gradients"]
    pairs = f"pairs of batches of {gradients['batch']} of {gradients['groups']} tasks"
    yield f"{pairs}; {result['seconds']:.0f} seconds in all"


def _reference_table(reference: JsonMapping) -> Table:
    table = build_table("Success where siblings mix", "reference", "success", "less without", "own less")
    arms = {
        "without": ("", "own - without"),
        "shuffled": ("shuffled - without", "own - shuffled"),
        "own": ("own - without", ""),
    }
    for arm, differences in arms.items():
        table.add_row(
            arm,
            format_interval(reference[arm]),
            *(format_interval(reference[difference], "+") if difference else "" for difference in differences),
        )
    return table


def _counts_table(truth: JsonMapping) -> Table:
    kinds = [kind for kind in truth["measured"] if kind == "all" or truth["measured"][kind]]
    table = build_table("Tokens that decide", "", *kinds)
    for name in ("measured", "decisive"):
        table.add_row(name, *(str(truth[name][kind]) for kind in kinds))
    return table


def _ranking_table(location: Mapping[str, JsonMapping | None], title: str) -> Table:
    table = build_table(title, "", *_REFERENCE_ARMS)
    for score, estimates_by_kind in location.items():
        for kind in ("auroc", "average precision") if estimates_by_kind else ():
            estimates: JsonMapping = estimates_by_kind[kind] if estimates_by_kind else {}
            cells = [
                format_interval(estimates[arm], "+" if "-" in arm else "") if arm in estimates else ""
                for arm in _REFERENCE_ARMS
            ]
            table.add_row(f"{score}, {'AUROC' if kind == 'auroc' else 'precision'}", *cells)
    return table


def _direction_table(direction: JsonMapping | None) -> Table:
    table = build_table("Decisive tokens at which the sign is the truth's", "sign of", "share")
    for name, estimate in (direction or {}).items():
        table.add_row(name, format_interval(estimate))
    return table


def _shares_table(credit: JsonMapping, published: JsonMapping) -> Table:
    table = build_table("Where the credit is", "", "of the credit", "published", "of the tokens")
    for name, place_shares in credit["shares"].items():
        table.add_row(
            name,
            format_share(place_shares["credit"]),
            format_share(published["shares"][name]["credit"]),
            format_share(place_shares["tokens"]),
        )
    return table


def _gradients_table(arms: Mapping[str, JsonMapping], title: str) -> Table:
    table = build_table(title, "weights", "agreement", "less GRPO's")
    for name, arm_estimates in arms.items():
        table.add_row(
            name,
            format_interval(arm_estimates["agreement"]),
            "" if name == "grpo" else format_interval(arm_estimates["less grpo"], "+"),
        )
    return table


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


def desk_tables(measured: JsonMapping) -> Iterator[Table | str]:
    """Yield what a measurement at the long desk says, in reading order."""
    sides, variance = measured["prob_right"], measured["variance"]
    yield (
        f"success {format_number(measured['success'])}, as a product of probabilities "
        f"{format_number(measured['success_product'])}; right at a request {format_number(measured['request_right'])} "
        f"(to act {format_number(sides['act'])}, to refuse {format_number(sides['refuse'])})"
    )
    if "thinking" in measured:
        thinking = measured["thinking"]
        yield (
            f"thinking: entropy {thinking['entropy']:.3f} of at most {thinking['most']:.3f} nat, "
            f"{format_share(thinking['other'])} on other words, whole in {format_share(thinking['whole'])} of rollouts"
        )
    yield "variance of the score: " + ", ".join(f"{kind} {format_number(share)}" for kind, share in variance.items())
    yield (
        f"rho {format_interval(measured['rho'])}, sigma of one group {_small_interval(measured['sigma'])}, right sign "
        f"{format_interval(measured['right_sign'])}; {measured['groups']} mixed of {measured['tasks']} groups"
    )
    yield f"the teacher moves the sampled tool the true way at {format_interval(measured['read'])} of the decisions"
    table = build_table(
        "Predicted gain over GRPO, and where the credit is", "weighting", "SGD", "Adam", "place", "sign"
    )
    for name, gain in measured["gains"].items():
        cells = ["" if name == "grpo" else format_interval(gain[metric]) for metric in ("sgd", "adam")]
        table.add_row(name, *cells, *(format_interval(measured["location"][name][side]) for side in ("place", "sign")))
    yield table
    yield (
        "place: area under the curve of the weight, decisions against other tokens at which the policy is undecided; "
        "sign: decisions that are what the outcome calls them against the other decisions"
    )
    answer = "yes" if measured["passes"] else "no"
    yield f"credit can matter here: {answer} (success .2 to .4, rho >= 2, sigma <= .02, both sides alike)"


def _small_interval(estimate: JsonMapping) -> str:
    """With four decimals."""
    ends = "" if estimate["low"] is None else f" [{estimate['low']:.4f}, {estimate['high']:.4f}]"
    return f"{estimate['value']:.4f}{ends}"
