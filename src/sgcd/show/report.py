"""sgcd report: a run's folder as one page that needs nothing else: no network, no other file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sgcd.errors import FolderError
from sgcd.files import write_whole
from sgcd.measure import health
from sgcd.measure.compare import compare, ends
from sgcd.measure.summary import summarise
from sgcd.records import CATEGORIES
from sgcd.run import RunFolder
from sgcd.show import looks, siblings
from sgcd.show import steps as chosen
from sgcd.show.curves import curves
from sgcd.show.steps import speller, tokens_of
from sgcd.show.tables import number, spent
from sgcd.show.visible import visible
from sgcd.yaml import read

HERE = Path(__file__).parent


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
        remarks=spent(metrics),
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
        kinds=looks.kinds(),
        limits={
            "tokens": chosen.TOKENS,
            "head": siblings.HEAD,
            "tail": siblings.TAIL,
            "seen": siblings.SEEN,
            "asked": siblings.ASKED,
            "nats": looks.NATS,
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
