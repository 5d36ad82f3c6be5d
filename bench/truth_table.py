"""The tables of what the lab's truth says of SGCD, in Markdown, from the figures in docs/truth.json alone."""

from collections.abc import Iterator, Mapping
from typing import Any

from learning_table import interval, percent, row

Json = dict[str, Any]
QUESTIONS = {
    "all": "decisive tokens, all others",
    "measured": "decisive tokens, other measured ones",
    "places": "places where a choice was decisive",
}


def table(result: Json) -> str:
    starts = result["starts"]
    parts = [heeding(starts), counts(starts), *(ranking(name, found) for name, found in starts.items())]
    parts += [signs(starts), shares(starts), conditions(starts), gradients(starts), closing(starts)]
    return "\n\n".join("\n".join(part) for part in parts)


def heeding(starts: Json) -> list[str]:
    lines = row("success where siblings mix", "without", "own", "shuffled", "own - without", "own - shuffled")
    lines += row(*["---"] * 6)
    for name, found in starts.items():
        told = found["reference"]
        cells = [interval(told[arm]) for arm in ("without", "own", "shuffled")]
        lines += row(name, *cells, *(interval(told[less], "+") for less in ("own - without", "own - shuffled")))
    return lines


def counts(starts: Json) -> list[str]:
    lines = row("tokens", "rollouts", "written", "literals", "measured", "decisive", "decisive by chance", "their size")
    lines += row(*["---"] * 8)
    for name, found in starts.items():
        told = found["truth"]
        cells = [str(told[key]) for key in ("rollouts", "tokens", "literals")]
        cells += [str(told[key]["all"]) for key in ("measured", "decisive")]
        lines += row(name, *cells, str(told["decisive by chance"]), f"{told['size of a decisive advantage']:.3f}")
    return lines


def ranking(start: str, found: Json) -> list[str]:
    lines = row(start, "score", "AUROC", "shuffled", "own - shuffled", "precision", "precision, shuffled")
    lines += row(*["---"] * 7)
    for question, title in QUESTIONS.items():
        for score, told in found["location"][question].items():
            if told:
                lines += row(title, score, *pair(told["auroc"], True), *pair(told["average precision"]))
    return lines


def pair(told: Json, less: bool = False) -> Iterator[str]:
    names = ("own", "shuffled", "own - shuffled")[: 3 if less else 2]
    return (interval(told[name], "+" if "-" in name else "") if name in told else "" for name in names)


def signs(starts: Json) -> list[str]:
    first = next(iter(starts.values()))["direction"]
    lines = row("sign is the truth's at decisive tokens", *first) + row(*["---"] * (1 + len(first)))
    for name, found in starts.items():
        lines += row(name, *map(interval, found["direction"].values()))
    return lines


def shares(starts: Json) -> list[str]:
    places = next(iter(starts.values()))["credit"]["shares"]
    lines = row("share of the credit (of the tokens)", *places, "tokens credited", "mean weight")
    lines += row(*["---"] * (3 + len(places)))
    for name, found in starts.items():
        for rule in ("", ", published"):
            told = found[f"credit{rule}"]
            cells = [f"{percent(both['credit'])} ({percent(both['tokens'])})" for both in told["shares"].values()]
            lines += row(name + rule, *cells, percent(told["credited tokens"]), f"{told['mean weight']:.3f}")
    return lines


def conditions(starts: Json) -> list[str]:
    names = next(iter(starts.values()))["decisive tokens"]
    lines = row("decisive tokens with", *names) + row(*["---"] * (1 + len(names)))
    for name, found in starts.items():
        for rule in ("", ", published"):
            lines += row(name + rule, *map(percent, found[f"decisive tokens{rule}"].values()))
    return lines


def gradients(starts: Json) -> list[str]:
    arms: Mapping[str, Json] = next(iter(starts.values()))["gradients"]["raw"]
    ways = [(start, kind) for start in starts for kind in ("raw", "scaled")]
    lines = row("gradients agree", *(f"{start}, {kind}" for start, kind in ways)) + row(*["---"] * (1 + len(ways)))
    for arm in arms:
        told = [starts[start]["gradients"][kind][arm] for start, kind in ways]
        if arm == "grpo":
            lines += row(arm, *(interval(each["agreement"]) for each in told))
        else:
            cells = (f"{each['agreement']['value']:.3f}, {interval(each['less grpo'], '+')}" for each in told)
            lines += row(arm, *cells)
    return lines


def closing(starts: Json) -> list[str]:
    first = next(iter(starts.values()))
    rule, sizes = first["definition"], first["sizes"]
    return [
        f"- {sizes['tasks']} mixed dev tasks, {sizes['trials']} plays an arm; decisive: measured where the likeliest "
        f"token is below {rule['top below']}, {rule['continuations']} plays on each side, beyond {rule['errors']:g} "
        "standard errors. Intervals: clustered by task, bootstraps over tasks, jackknife for gradients.",
        "- Gradients: mean cosine of batches of "
        + ", ".join(f"{found['gradients']['batch']} of {found['gradients']['groups']}" for found in starts.values())
        + " tasks, and how much more than GRPO's; scaled: each parameter by its size over batches, as Adam does.",
    ]
