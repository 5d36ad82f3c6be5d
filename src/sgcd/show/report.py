"""sgcd report: a run's folder as one page that needs nothing else: no network, no other file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.errors import FolderError, TemplateError
from sgcd.files import write_whole
from sgcd.measure import health
from sgcd.measure.compare import compare, ends
from sgcd.measure.summary import summarise
from sgcd.records import CATEGORIES, Ids, Scored
from sgcd.run import RunFolder
from sgcd.show import siblings as shown
from sgcd.show.curves import curves
from sgcd.show.siblings import Played, Spell, kinds, played
from sgcd.show.tables import number
from sgcd.show.visible import visible
from sgcd.stored import Group
from sgcd.yaml import read

HERE = Path(__file__).parent
STEPS = 4
"""How many steps are shown when none is named."""
TOKENS = 40_000
"""Tokens on one page, at most; the first task of a step is shown in any case."""


@dataclass(slots=True)
class Step:
    """One step on the page."""

    step: int
    row: Mapping[str, Any]
    tasks: list[Played] = field(default_factory=list[Played])
    left_out: int = 0
    """Tasks that the step learnt from and for which the page has no room."""
    others: list[str] = field(default_factory=list[str])
    """Tasks that it did not learn from, in words."""
    remark: str = ""


def report(path: Path, steps: Sequence[int] = (), out: Path | None = None) -> Path:
    """Write the page of a run and say where it is; the same folder gives the same bytes."""
    folder = RunFolder.open(path)
    where = out or folder.path / "report.html"
    if not where.parent.is_dir():
        raise FolderError(f"{where}: the folder {where.parent} does not exist; make it, or name another file by --out")
    write_whole(where, page(folder, steps).encode())
    return where


def page(folder: RunFolder, steps: Sequence[int] = ()) -> str:
    metrics, evaluations = folder.metrics(), folder.evaluations()
    recipe = read(folder.recipe_text, f"{folder.path}/recipe.yaml")
    split = recipe.get("evaluation", {}).get("split") or next((row["split"] for row in evaluations), None)
    spell, unspelt = speller(folder)
    of_steps, numbers, bounds = tokens_of(folder, metrics, steps, spell)
    columns = [column for step in of_steps for task in step.tasks for column in task.columns]
    pictures, flat = curves(metrics, evaluations, split)
    words = [visible(line) for line in health.of_run(metrics)]
    return rendered(
        run=visible(folder.path.resolve().name),
        method=visible(str(recipe.get("method", {}).get("name", "?"))),
        step=metrics[-1]["step"] if metrics else 0,
        planned=recipe.get("steps"),
        last=metrics[-1] if metrics else None,
        invalid=[line.removeprefix("INVALID").lstrip(": ") for line in words if line.startswith("INVALID")],
        health=[line for line in words if not line.startswith("INVALID")],
        remarks=[],
        measured=measured(folder, split),
        categories=CATEGORIES,
        curves=pictures,
        flat=flat,
        recipe=visible(folder.recipe_text),
        facts=facts(folder.facts),
        steps=of_steps,
        played=folder.played(),
        unspelt=unspelt,
        numbers=numbers,
        bounds=bounds,
        has={name: any(name in own for own in numbers.values()) for name in ("divergence", "masked")},
        mode="weight" if any(column.weight and not column.even for column in columns) else "advantage",
        kinds=kinds(),
        limits={
            "tokens": TOKENS,
            "head": shown.HEAD,
            "tail": shown.TAIL,
            "seen": shown.SEEN,
            "asked": shown.ASKED,
            "nats": shown.NATS,
        },
    )


def rendered(**told: Any) -> str:
    """The template with everything escaped, under a policy that runs only this page's own script and style."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    room = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Any] = {"number": number, "svg": Markup}
    room.filters.update(filters)  # pyright: ignore[reportUnknownMemberType]
    own = {
        name: (HERE / f"report.{end}").read_text(encoding="utf-8") for name, end in (("style", "css"), ("script", "js"))
    }
    allowed = {name: f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for name, text in own.items()}
    inline = {name: Markup(text) for name, text in own.items()}
    return room.get_template("report.html.jinja").render(**told, **inline, allowed=allowed)


def measured(folder: RunFolder, split: str | None) -> dict[str, Any]:
    """Both ends of the run on held-out tasks, or why there is nothing to compare."""
    if not any(row["split"] == split for row in folder.evaluations()):
        return {"reason": "no held-out tasks were played"}
    try:
        start, end = ends(folder.path, split)
        change = compare([end], [start])
    except FolderError as problem:
        return {"reason": visible(str(problem))}
    return {"reason": "", "start": summarise(start.rows), "end": summarise(end.rows), "change": change, "split": split}


def facts(told: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Facts of a run, one line each."""
    lines: list[tuple[str, str]] = []
    for name, value in told.items():
        if isinstance(value, dict):
            lines += facts(value, f"{prefix}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            lines.append((visible(prefix + name), visible(str(value))))
    return lines


# -- tokens -----------------------------------------------------------------------------------------------------------


def tokens_of(
    folder: RunFolder, metrics: Sequence[Mapping[str, Any]], steps: Sequence[int], spell: Spell
) -> tuple[list[Step], dict[str, Any], dict[str, float]]:
    """The chosen steps, the numbers of their tokens, and the bounds of the colours."""
    rows = {row["step"]: row for row in metrics}
    chosen = sorted(set(steps)) or spaced(folder.played(), STEPS)
    groups = {step: folder.read_rollouts(step) for step in chosen}
    scored = {step: credit(folder, step) for step in chosen}
    deserved = [one.credit for some in scored.values() for one in some.values()]
    bounds = {
        "advantage": max((float(np.abs(one.token_advantage).max(initial=0)) for one in deserved), default=0.0),
        "cap": max((one.cap for one in deserved), default=1.0),
        "floor": min((one.floor for one in deserved), default=1.0),
    }
    made: list[Step] = []
    numbers: dict[str, Any] = {}
    for step in chosen:
        made.append(Step(step, rows.get(step, {})))
        made[-1].others = [other(group) for group in groups[step] if not group.kept]
        kept = [group.siblings for group in groups[step] if group.kept]
        if kept and not scored[step]:
            made[-1].remark = "no credit of this step is on record"
        references = folder.read_references(step)
        room = TOKENS // len(chosen)
        for index, siblings in enumerate(kept):
            room -= shown.tokens(siblings)
            if index and room < 0:
                made[-1].left_out = len(kept) - index
                break
            key = f"{len(made)}.{index}"
            task, own = played(key, siblings, scored[step], references, spell, bounds["advantage"])
            made[-1].tasks.append(task)
            numbers |= own
    return made, numbers, bounds


def credit(folder: RunFolder, step: int) -> dict[str, Scored]:
    """Empty where a step learnt nothing or was stopped before it could."""
    try:
        return folder.read_credit(step)
    except FolderError:
        return {}


def other(group: Group) -> str:
    """A task that a step did not learn from."""
    won, all_ = sum(rollout.success for rollout in group.siblings.rollouts), len(group.siblings.rollouts)
    broken = f", {len(group.siblings.broken)} broken" if group.siblings.broken else ""
    return f"{visible(group.siblings.task.id)} ({won} of {all_} succeeded{broken})"


def spaced(steps: Sequence[int], count: int) -> list[int]:
    """The first, the last, and some evenly between.

    >>> spaced(range(1, 41), 4)
    [1, 14, 27, 40]
    """
    if len(steps) <= count:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (count - 1))] for index in range(count)]


def speller(folder: RunFolder) -> tuple[Spell, str]:
    """How ids are spelt, by the tokenizer in the run's own folder; without one they are shown as they are, and why."""
    from sgcd.chat import Chat

    saved = [folder.policy_path, *(folder.checkpoint_path(step) for step in reversed(folder.checkpoints()))]
    place = next((place for place in saved if place.is_dir()), None)
    if place is None:
        return as_ids, "Tokens are shown as ids: the run has no checkpoint yet, and so no tokenizer"
    try:
        chat = Chat.load(place)
    except (TemplateError, ModuleNotFoundError) as problem:
        return as_ids, f"Tokens are shown as ids: {visible(str(problem))}"
    return lambda ids: pieces(*chat.spell(ids)), ""


def pieces(text: str, spans: Any) -> list[str]:
    """The text of each token. A character that several make together is shown with the first."""
    found: list[str] = []
    at = 0
    for start, stop in spans.tolist():
        found.append(text[max(at, start) : stop] or "‥")
        at = max(at, stop)
    return found


def as_ids(ids: Ids) -> list[str]:
    return [f" {token}" for token in ids.tolist()]
