"""Renders the tables of docs/log/credit-tables.md from docs/truth.json."""

from collections.abc import Iterator, Mapping
from typing import Any

from learning_table import markdown_interval, markdown_percent, markdown_row

Json = dict[str, Any]
_QUESTIONS = {
    "all": "decisive tokens, all others",
    "undecided": "decisive tokens, other undecided ones",
    "measured": "decisive tokens, other measured ones",
    "places": "places where a choice was decisive",
}


def table(result: Json) -> str:
    starts = result["starts"]
    parts = [
        reference_effect_table(starts),
        token_counts_table(starts),
        *(ranking_table(name, report) for name, report in starts.items()),
    ]
    parts += [
        sign_table(starts),
        credit_shares_table(starts),
        conditions_table(starts),
        gradients_table(starts),
        truth_footnotes(starts),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def reference_effect_table(starts: Json) -> list[str]:
    lines = markdown_row("success where siblings mix", "without", "own", "shuffled", "own - without", "own - shuffled")
    lines += markdown_row(*["---"] * 6)
    for name, report in starts.items():
        effect = report["reference"]
        cells = [markdown_interval(effect[arm]) for arm in ("without", "own", "shuffled")]
        lines += markdown_row(
            name,
            *cells,
            *(markdown_interval(effect[difference], "+") for difference in ("own - without", "own - shuffled")),
        )
    return lines


def token_counts_table(starts: Json) -> list[str]:
    lines = markdown_row(
        "tokens", "rollouts", "written", "literals", "measured", "decisive", "decisive by chance", "their size"
    )
    lines += markdown_row(*["---"] * 8)
    for name, report in starts.items():
        truth_counts = report["truth"]
        cells = [str(truth_counts[key]) for key in ("rollouts", "tokens", "literals")]
        cells += [str(truth_counts[key]["all"]) for key in ("measured", "decisive")]
        lines += markdown_row(
            name, *cells, str(truth_counts["decisive by chance"]), f"{truth_counts['size of a decisive advantage']:.3f}"
        )
    return lines


def ranking_table(start: str, report: Json) -> list[str]:
    lines = markdown_row(start, "score", "AUROC", "shuffled", "own - shuffled", "precision", "precision, shuffled")
    lines += markdown_row(*["---"] * 7)
    for question, title in _QUESTIONS.items():
        for score, metrics in report["location"][question].items():
            if metrics:
                lines += markdown_row(
                    title, score, *arm_cells(metrics["auroc"], True), *arm_cells(metrics["average precision"])
                )
    return lines


def arm_cells(estimates: Json, with_difference: bool = False) -> Iterator[str]:
    names = ("own", "shuffled", "own - shuffled")[: 3 if with_difference else 2]
    return (
        markdown_interval(estimates[name], "+" if "-" in name else "") if name in estimates else "" for name in names
    )


def sign_table(starts: Json) -> list[str]:
    first = next(iter(starts.values()))["direction"]
    lines = markdown_row("sign is the truth's at decisive tokens", *first) + markdown_row(*["---"] * (1 + len(first)))
    for name, report in starts.items():
        lines += markdown_row(name, *map(markdown_interval, report["direction"].values()))
    return lines


def credit_shares_table(starts: Json) -> list[str]:
    places = next(iter(starts.values()))["credit"]["shares"]
    lines = markdown_row("share of the credit (of the tokens)", *places, "tokens credited", "mean weight")
    lines += markdown_row(*["---"] * (3 + len(places)))
    for name, report in starts.items():
        for rule in ("", ", published"):
            credit = report[f"credit{rule}"]
            cells = [
                f"{markdown_percent(place_shares['credit'])} ({markdown_percent(place_shares['tokens'])})"
                for place_shares in credit["shares"].values()
            ]
            lines += markdown_row(
                name + rule, *cells, markdown_percent(credit["credited tokens"]), f"{credit['mean weight']:.3f}"
            )
    return lines


def conditions_table(starts: Json) -> list[str]:
    names = next(iter(starts.values()))["decisive tokens"]
    lines = markdown_row("decisive tokens with", *names) + markdown_row(*["---"] * (1 + len(names)))
    for name, report in starts.items():
        for rule in ("", ", published"):
            lines += markdown_row(name + rule, *map(markdown_percent, report[f"decisive tokens{rule}"].values()))
    return lines


def gradients_table(starts: Json) -> list[str]:
    arms: Mapping[str, Json] = next(iter(starts.values()))["gradients"]["raw"]
    columns = [(start, kind) for start in starts for kind in ("raw", "scaled")]
    lines = markdown_row("gradients agree", *(f"{start}, {kind}" for start, kind in columns)) + markdown_row(
        *["---"] * (1 + len(columns))
    )
    for arm in arms:
        agreements = [starts[start]["gradients"][kind][arm] for start, kind in columns]
        if arm == "grpo":
            lines += markdown_row(arm, *(markdown_interval(agreement["agreement"]) for agreement in agreements))
        else:
            cells = (
                f"{agreement['agreement']['value']:.3f}, {markdown_interval(agreement['less grpo'], '+')}"
                for agreement in agreements
            )
            lines += markdown_row(arm, *cells)
    return lines


def truth_footnotes(starts: Json) -> list[str]:
    first = next(iter(starts.values()))
    rule, sizes = first["definition"], first["sizes"]
    kind = next(iter(first["direction"].values()))["kind"]
    return [
        f"- {sizes['tasks']} mixed dev tasks, {sizes['trials']} plays an arm; decisive: measured where the likeliest "
        f"token is below {rule['top below']}, {rule['continuations']} plays on each side, beyond {rule['errors']:g} "
        f"standard errors. Intervals: clustered by task; of rankings and signs: {kind}; jackknife for gradients.",
        "- Gradients: mean cosine of batches of "
        + ", ".join(f"{report['gradients']['batch']} of {report['gradients']['groups']}" for report in starts.values())
        + " tasks, and how much more than GRPO's; scaled: each parameter by its size over batches, as Adam does.",
    ]
