"""The report of a run: one HTML page that needs no network and no other file."""

import logging
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sgcd.errors import FolderError
from sgcd.measure import health
from sgcd.measure.compare import compare_evaluations, load_first_and_last
from sgcd.measure.summary import summarise_evaluation
from sgcd.measure.trial_rows import TrialRow
from sgcd.measure.validity import count_noun, describe_commonest_cause, format_percent, fruitless_reason
from sgcd.settings import flatten_mapping
from sgcd.show import group_columns as siblings
from sgcd.show import recorded
from sgcd.show import steps as chosen
from sgcd.show import token_classes as looks
from sgcd.show.escape_text import escape_text
from sgcd.show.plots.curves import build_curves
from sgcd.show.steps import build_step_sections, load_token_decoder
from sgcd.show.tables import describe_change, describe_usage, floor_column, format_interval, format_number
from sgcd.show.turn_strip import LONG_TURNS
from sgcd.storage.atomic import write_atomic
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

_logger = logging.getLogger(__name__)
_MEASURED = ("weight", "advantage", "divergence", "masked")
"""Numbers of a token that a page may lack."""
_MAX_CAUSES = 20
"""Texts of broken rollouts on a page."""
_TEMPLATE_DIR = Path(__file__).parent
_ASSETS = {"style": "report.css", "script": "report.js", "pair_style": "pair.css", "pair_script": "pair.js"}


def write_report(path: Path, steps: Sequence[int] = (), out: Path | None = None) -> Path:
    """Write the page of a run and return its path; the same folder gives the same bytes."""
    folder = RunFolder.open(path)
    report_path = find_report_path(folder, out)
    write_atomic(report_path, render_page(folder, steps).encode())
    return report_path


def find_report_path(folder: RunFolder, out: Path | None) -> Path:
    report_path = out or folder.report_path
    if not report_path.parent.is_dir():
        raise FolderError(
            f"{report_path}: the folder {report_path.parent} does not exist; make it, or name another file by --out"
        )
    return report_path


def render_page(folder: RunFolder, steps: Sequence[int] = ()) -> str:
    metrics, damage = folder.scan_metrics()
    evaluations, evaluation_damage = folder.scan_evaluations()
    damage += evaluation_damage
    recipe = folder.read_recipe()
    split = recipe.get("evaluation", {}).get("split") or next((row["split"] for row in evaluations), None)
    decode_tokens, tokenizer_problem = load_token_decoder(folder, damage)
    step_sections, numbers, bounds = build_step_sections(
        folder, metrics, steps or recorded.choose_batches(folder), decode_tokens=decode_tokens, damage=damage
    )
    damage += folder.find_lost_step_files()
    columns = [column for step in step_sections for task in step.tasks for column in task.columns]
    is_recorded = folder.kind == "recorded"
    pictures, unchanged = ([], []) if is_recorded else build_curves(metrics, evaluations, split)
    damage_lines = [f"damaged: {problem}" for problem in dict.fromkeys(damage)]
    damage_lines += [f"sharing: {folder.facts['sharing']}"] if "sharing" in folder.facts else []
    for line in damage_lines:
        _logger.warning(line)
    measured: dict[str, Any] = (
        {"reason": escape_text(evaluation_damage[0])}
        if evaluation_damage
        else {"reason": "recorded rollouts"}
        if is_recorded
        else held_out_result(folder, evaluations, split)
    )
    headline = recorded.describe_recorded(folder.facts) if is_recorded else describe_outcome(metrics, measured)
    fallen = (
        [] if measured["reason"] or measured["is_start_only"] else health.fallen_category_warnings(measured["change"])
    )
    warnings = recorded.recorded_warnings(metrics) if is_recorded else health.run_warnings(metrics)
    health_lines = [escape_text(line) for line in (*damage_lines, *warnings, *fallen)]
    return render_template(
        "report",
        run=escape_text(folder.path.resolve().name),
        **describe_origin(folder, recipe),
        step=metrics[-1].step if metrics else 0,
        planned=recipe.get("steps"),
        last=metrics[-1] if metrics else None,
        invalid=[line.removeprefix("INVALID").lstrip(": ") for line in health_lines if line.startswith("INVALID")],
        health=[line for line in health_lines if not line.startswith("INVALID")],
        remarks=describe_usage(metrics),
        headline=escape_text(headline),
        reach="" if is_recorded else escape_text(describe_reach(metrics)),
        broken=describe_broken(metrics),
        measured=measured,
        curves=pictures,
        flat=unchanged,
        recipe=escape_text(folder.recipe_text),
        facts=[(escape_text(name), escape_text(str(value))) for name, value in flatten_mapping(folder.facts).items()],
        steps=step_sections,
        played=folder.steps_with_rollouts(),
        unspelt=tokenizer_problem,
        numbers=numbers,
        bounds=bounds,
        has={name: any(name in token_numbers for token_numbers in numbers.values()) for name in _MEASURED},
        mode=choose_colours(columns),
        finder=describe_finder(step_sections),
        kinds=looks.token_kind_names(),
        limits=page_limits(),
    )


def choose_colours(columns: Sequence[siblings.RolloutColumn]) -> str:
    """The first colours of the page: weights where any differs from one, else advantages, else kinds of tokens."""
    if any(column.mean_weight and not column.has_unit_weights for column in columns):
        return "weight"
    return "advantage" if any(column.advantage is not None for column in columns) else "kind"


def describe_finder(steps: Sequence[chosen.StepSection]) -> dict[str, Any]:
    """What the tasks of a page can be filtered by."""
    tasks = [task for step in steps for task in step.tasks]
    return {
        "num_tasks": len(tasks),
        "categories": sorted({task.category for task in tasks}),
        "outcomes": sorted({task.outcome for task in tasks}),
        "steps": [step.step for step in steps if step.tasks],
    }


def page_limits() -> dict[str, Any]:
    """What a page leaves out, and the levels of its colours."""
    return {
        "tokens": chosen.MAX_PAGE_TOKENS,
        "head": looks.MAX_HEAD_TOKENS,
        "tail": looks.MAX_TAIL_TOKENS,
        "observation": siblings.MAX_OBSERVATION_CHARS,
        "prompt": siblings.MAX_PROMPT_CHARS,
        "turns": LONG_TURNS,
        "nats": looks.DIVERGENCE_LEVELS,
    }


def render_template(template: str, **context: Any) -> str:
    """Fill the template; all values are escaped, and the page's policy allows only its own script and style."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE_DIR),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"number": format_number, "svg": Markup, "mark_numbers": mark_numbers}
    filters |= {"direction": health.direction_of_change, "floor_column": floor_column}
    environment.filters.update(filters)  # pyright: ignore[reportUnknownMemberType]
    assets = {name: (_TEMPLATE_DIR / file).read_text(encoding="utf-8") for name, file in _ASSETS.items()}
    csp_hashes = {
        name: f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for name, text in assets.items()
    }
    inline_assets = {name: Markup(text) for name, text in assets.items()}
    return environment.get_template(f"{template}.html.jinja").render(**context, **inline_assets, allowed=csp_hashes)


def mark_numbers(line: str) -> Any:
    """The line as HTML, with its numbers in <b>, but for totals: of 160."""
    from markupsafe import Markup, escape

    parts = re.split(r"((?<!\w)(?<!\bof )[+-]?\.?\d[\d.,]*(?: %)?)", line)
    return Markup("").join(Markup("<b>{}</b>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts))


def held_out_result(folder: RunFolder, evaluations: Sequence[TrialRow], split: str | None) -> dict[str, Any]:
    """Compare both ends of the run on held-out tasks, or give the reason why that is not possible."""
    if not any(row["split"] == split for row in evaluations):
        return {"reason": "no held-out tasks were played"}
    try:
        start, end = load_first_and_last(folder.path, split)
        change = compare_evaluations([end], [start])
    except FolderError as problem:
        return {"reason": escape_text(str(problem))}
    return {
        "reason": "",
        "is_start_only": start.step == end.step,
        "start": summarise_evaluation(start.rows),
        "end": summarise_evaluation(end.rows),
        "change": change,
        "split": split,
    }


def describe_outcome(metrics: Sequence[StepMetrics], measured: Mapping[str, Any]) -> str:
    """One sentence: what was learned, what fell and how sure that is, or why none of it is known."""
    if fruitless := fruitless_reason(metrics):
        return f"This run has no result: {fruitless}."
    if measured["reason"]:
        trained = (
            f" In training, success was {format_number(metrics[0].success)} in step {metrics[0].step} and "
            f"{format_number(metrics[-1].success)} in step {metrics[-1].step}; the tasks differ from step to step."
            if len(metrics) > 1
            else ""
        )
        return f"What was learned is not known: {measured['reason']}.{trained}"
    if measured["is_start_only"]:
        rates = ", ".join(
            f"{format_interval(part['overall'])} {mode}" for mode, part in measured["start"]["modes"].items()
        )
        return (
            f"What was learned is not known yet: held-out {measured['split']} tasks were evaluated at step "
            f"{measured['start']['step']} alone (success {rates})."
        )
    return describe_change(measured["change"])


def describe_reach(metrics: Sequence[StepMetrics]) -> str:
    """How much of a run its weights touched; empty for a method without weights on record."""
    steps = [row.credit for row in metrics if row.credit]
    creditable = sum(credit.creditable for credit in steps)
    if not creditable:
        return ""
    credited, scored = sum(credit.credited for credit in steps), sum(credit.scored for credit in steps)
    share = format_percent(credited / creditable)
    return (
        f"In the whole run {share} of the tokens that may have credit were raised above weight one; {scored:,} of "
        f"{sum(credit.rollouts for credit in steps):,} rollouts learned from were read by a teacher. This page shows "
        "one run; sgcd compare says whether its method helped, from runs of both methods."
    )


def describe_origin(folder: RunFolder, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What the rollouts of a page come from: the method and the policy, or another tool."""
    is_recorded = folder.kind == "recorded"
    has_policy = not is_recorded or "policy" in folder.facts
    return {
        "method": escape_text(str(recipe.get("method", {}).get("name", "?"))),
        "policy": describe_policy(recipe, folder.facts) if has_policy else "",
        "recorded": is_recorded,
        "unit": "Batch" if is_recorded else "Step",
    }


def describe_policy(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Where the policy started, and its size; empty where the recipe names none."""
    start, parameters = recipe.get("policy", {}).get("start"), facts.get("policy", {}).get("parameters")
    size = f" ({parameters:,} parameters)" if parameters else ""
    return escape_text(f"{start}{size}") if start else ""


def describe_broken(metrics: Sequence[StepMetrics]) -> dict[str, Any]:
    """The rollouts that broke in a run: how many, the commonest cause, and each text with its count."""
    causes = Counter[str]()
    for row in metrics:
        causes.update(row.causes)
    num_broken = sum(row.broken for row in metrics)
    counted = f"{num_broken} of {count_noun(sum(row.rollouts for row in metrics), 'rollout')} broke"
    return {
        "summary": escape_text(f"{counted}, {describe_commonest_cause(causes)}") if num_broken else "",
        "causes": [(escape_text(text), count) for text, count in causes.most_common(_MAX_CAUSES)],
        "left_out": max(0, len(causes) - _MAX_CAUSES),
    }
