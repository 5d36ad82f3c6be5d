"""Measures and describes what `sgcd credit` finds in recorded rollouts with known gold actions.

    sgcd credit FILE --no-score --out FOLDER
    python bench/references/case_airline.py FILE FOLDER

writes docs/case-airline.json, and renders the tables of docs/case-airline.md from it. FILE has the rollouts of
tau-bench's airline tasks, of which this page quotes nothing. Without arguments the tables are rendered anew.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tau_airline import READING_TOOLS

from sgcd.measure.statistics import clip_interval, t_interval
from sgcd.recorded.points import parting_turns
from sgcd.records import Call, Group, Rollout
from sgcd.storage.run_folder import RunFolder

Json = dict[str, Any]
DOCS = Path(__file__).resolve().parents[2] / "docs"
SHOWN_EVERY, MAX_SHOWN = 5, 5
"""Which mixed tasks the page shows: every fifth, from the first on."""
IN_SHORT = {
    "1": "A later return flight is wanted. The fare allows no change, so the trip is to be cancelled on its insurance.",
    "11": "The flights of a reservation are to be booked for a friend too, paid in one of two ways by a limit.",
    "21": "A nonstop flight costs more than the customer accepts: nothing may change.",
    "31": "Of two trips on one day only the customer's second choice may be cancelled.",
    "41": "A booking is not as recent as the customer says: nothing may be cancelled.",
}
"""The tasks in words of our own."""
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Case:
    """One mixed task: its siblings, the row of its reference, and the calls that a perfect attempt makes."""

    group: Group
    reference: Json
    gold: Sequence[Json]

    def lacking(self) -> list[Json]:
        """The gold calls that change something and that some failure does not make."""
        failures = [rollout for rollout in self.group.rollouts if not rollout.success]
        return [
            action
            for action in self.gold
            if not is_reading(action["name"])
            and any(not any(is_same(call, action) for call in failure.calls) for failure in failures)
        ]

    def right_tools(self) -> set[str]:
        """The tools that the reference's points name as what successes do."""
        words = {word.strip(".,") for point in self.reference["points"] for word in point["right"].split()}
        return words & {call.name for rollout in self.group.rollouts for call in rollout.calls}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.folder:
        result = measure(read_cases(arguments.file, arguments.folder))
        (DOCS / "case-airline.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    page = DOCS / "case-airline.md"
    page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def render(page: str) -> str:
    """The page with its generated parts as the figures have them."""
    result = json.loads((DOCS / "case-airline.json").read_text(encoding="utf-8"))
    parts = {"groups": render_groups(result["shown"]), "figures": render_figures(result)}
    return BLOCK.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}", page)


def read_cases(file: Path, folder: Path) -> list[Case]:
    """The mixed tasks of a folder, in its order."""
    gold = {str(row["task_id"]): row["info"]["task"]["actions"] for row in json.loads(file.read_text(encoding="utf-8"))}
    run = RunFolder.open(folder)
    cases: list[Case] = []
    for step in run.steps_with_rollouts():
        references = {row["task"]: row for row in run.read_references(step)}
        groups = [stored.group for stored in run.read_rollouts(step)]
        cases += [Case(group, references[group.task.id], gold[group.task.id]) for group in groups]
    return cases


def measure(cases: Sequence[Case]) -> Json:
    """All figures of the page."""
    with_lack = [case for case in cases if case.lacking()]
    own = [float(names_lacking(case, case)) for case in with_lack]
    other = [float(np.mean([names_lacking(one, case) for one in cases if one is not case])) for case in with_lack]
    turns = {
        "success": [share for case in cases if (share := credited_share(case, of_success=True))],
        "failure": [share for case in cases if (share := credited_share(case, of_success=False))],
    }
    both = sum(
        not {point["right"] for point in case.reference["points"]}.isdisjoint(
            point["wrong"] for point in case.reference["points"]
        )
        for case in cases
    )
    return {
        "tasks": len(cases),
        "rollouts": sum(len(case.group.rollouts) for case in cases),
        "with_reference": sum("text" in case.reference for case in cases),
        "act_on_both_sides": both,
        "named": compare(own, other),
        "turns": {name: compare([a for a, _ in pairs], [b for _, b in pairs]) for name, pairs in turns.items()},
        "shown": [describe_case(case) for case in cases[::SHOWN_EVERY][:MAX_SHOWN]],
    }


def names_lacking(case: Case, of: Case) -> bool:
    """Whether the reference of `case` names a tool of a gold call that a failure of another one, `of`, lacks."""
    return not case.right_tools().isdisjoint({action["name"] for action in of.lacking()})


def credited_share(case: Case, *, of_success: bool) -> tuple[float, float] | None:
    """The share of the deciding calls that are in credited turns, and the share of all turns with calls that are.

    The deciding calls of a success are gold calls that some failure lacks; those of a failure change something and are
    no gold calls. None without any.
    """
    lacking = case.lacking()
    hits, chances = list[float](), list[float]()
    for rollout in (one for one in case.group.rollouts if one.success is of_success):
        credited = set(parting_turns(case.reference, rollout.sibling))
        with_calls = [number for number, turn in enumerate(rollout.turns, start=1) if turn.calls]
        if not credited:
            continue
        deciding = find_deciding(rollout, lacking if of_success else case.gold, is_gold=of_success)
        chance = sum(number in credited for number in with_calls) / max(1, len(with_calls))
        hits += [float(number in credited) for number in deciding]
        chances += [chance] * len(deciding)
    return (float(np.mean(hits)), float(np.mean(chances))) if hits else None


def find_deciding(rollout: Rollout, actions: Sequence[Json], *, is_gold: bool) -> list[int]:
    """The turns, from 1, of calls that change something and are among the actions, or are not."""
    return [
        number
        for number, turn in enumerate(rollout.turns, start=1)
        for call in turn.calls
        if not is_reading(call.name) and any(is_same(call, action) for action in actions) is is_gold
    ]


def compare(own: Sequence[float], other: Sequence[float]) -> Json:
    """Means over tasks and their difference, with 95 % intervals."""
    difference = [a - b for a, b in zip(own, other, strict=True)]
    parts = {"own": (own, 0.0), "other": (other, 0.0), "difference": (difference, -1.0)}
    return {
        "tasks": len(own),
        **{name: clip_interval(t_interval(values), low, 1.0).to_json() for name, (values, low) in parts.items()},
    }


def describe_case(case: Case) -> Json:
    """What the page shows of a task: our reference and the turns, nothing of what anybody wrote."""
    siblings = [
        {
            "sibling": rollout.sibling,
            "success": rollout.success,
            "turns": len(rollout.turns),
            "parts": parting_turns(case.reference, rollout.sibling),
            "calls": {
                number: [call.name for call in rollout.turns[number - 1].calls]
                for number in parting_turns(case.reference, rollout.sibling)
            },
        }
        for rollout in case.group.rollouts
    ]
    lacking = sorted({action["name"] for action in case.lacking()})
    return {"task": case.group.task.id, "reference": case.reference["text"], "lacking": lacking, "siblings": siblings}


def is_reading(tool: str) -> bool:
    return tool.startswith(READING_TOOLS) or tool == "transfer_to_human_agents"


def is_same(call: Call, action: Json) -> bool:
    return call.name == action["name"] and dict(call.arguments) == action["kwargs"]


def render_groups(shown: Sequence[Mapping[str, Any]]) -> str:
    """A section for each shown task."""
    parts: list[str] = []
    for case in shown:
        rows = [
            f"| {one['sibling']} | {outcome} | {one['turns']} | {_describe_parts(one)} |"
            for one in case["siblings"]
            for outcome in ["success" if one["success"] else "failure"]
        ]
        lacking = ", ".join(f"`{name}`" for name in case["lacking"]) or "none"
        parts += [
            f"### Task {case['task']}\n",
            f"{IN_SHORT[case['task']]}\n",
            f"```text\n{case['reference']}\n```\n",
            "| sibling | outcome | turns | where it parts |\n| --- | --- | --- | --- |",
            "\n".join(rows) + "\n",
            f"Gold calls that some failure lacks: {lacking}.\n",
        ]
    return "\n".join(parts)


def _describe_parts(one: Mapping[str, Any]) -> str:
    by_turn = {int(turn): calls for turn, calls in one["calls"].items()}
    words = [f"turn {turn} ({', '.join(calls) or 'says something'})" for turn, calls in sorted(by_turn.items())]
    return ", ".join(words) or "at no named point"


def render_figures(result: Mapping[str, Any]) -> str:
    """The comparison with chance, a row for each measure."""
    turns, chance = result["turns"], "any of its turns with calls"
    names = {
        "the reference names the tool of a gold call that a failure lacks": (result["named"], "other references"),
        "such a call of a success is in a credited turn": (turns["success"], chance),
        "a failure's call that is no gold call is in a credited turn": (turns["failure"], chance),
    }
    rows = [
        f"| {name} | {part['tasks']} | {_interval(part['own'])} | {_interval(part['other'])}, {against} | "
        f"{_interval(part['difference'])} |"
        for name, (part, against) in names.items()
    ]
    head = "| what | tasks | share | by chance | difference |\n| --- | --- | --- | --- | --- |"
    return "\n".join([head, *rows])


def _interval(part: Mapping[str, Any]) -> str:
    def short(value: float) -> str:
        return f"{value:.2f}".replace("0.", ".", 1)

    return f"{short(part['value'])} [{short(part['low'])}, {short(part['high'])}]"


if __name__ == "__main__":
    sys.exit(main())
