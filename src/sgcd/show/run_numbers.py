"""The numbers of a step and of an evaluation by name, for the terminal and the trackers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sgcd.storage.metrics import StepMetrics


@dataclass(frozen=True, slots=True)
class StepNumber:
    """One number of a step; None where it was not measured."""

    name: str
    get: Callable[[StepMetrics], float | None]
    is_share: bool = False


def divide(part: float, total: float | None) -> float | None:
    return part / total if total else None


def learning_seconds(row: StepMetrics) -> float:
    """The time of a step without evaluation and saving, which most steps do not have."""
    return row.seconds.get("total", 0.0) - row.seconds.get("evaluation", 0.0) - row.seconds.get("saving", 0.0)


def _share_without_tool(row: StepMetrics) -> float | None:
    audits = row.audit.values()
    return divide(sum(audit.without_tool for audit in audits), sum(audit.successes for audit in audits))


STEP_NUMBERS: tuple[StepNumber, ...] = (
    StepNumber("reward", lambda row: row.reward),
    StepNumber("success", lambda row: row.success, is_share=True),
    StepNumber("mixed groups", lambda row: divide(row.mixed, row.tasks), is_share=True),
    StepNumber("successes without a tool", _share_without_tool, is_share=True),
    StepNumber(
        "credited tokens",
        lambda row: divide(row.credit.credited, row.credit.creditable) if row.credit else None,
        is_share=True,
    ),
    StepNumber("mean weight", lambda row: row.credit.weight.mean if row.credit else None),
    StepNumber(
        "groups with a reference",
        lambda row: divide(row.reference.written, row.reference.groups) if row.reference else None,
        is_share=True,
    ),
    StepNumber("calls of the writer", lambda row: float(row.endpoint.calls) if row.endpoint else None),
    StepNumber("broken rollouts", lambda row: divide(row.broken, row.rollouts), is_share=True),
    StepNumber("loss", lambda row: row.loss),
    StepNumber("gradient", lambda row: row.grad_norm),
    StepNumber("entropy", lambda row: row.entropy),
    StepNumber("tokens a second", lambda row: divide(row.tokens_sampled or row.tokens_learnt, learning_seconds(row))),
    StepNumber("seconds of a step", lambda row: row.seconds.get("total")),
)


def collect_step_numbers(row: StepMetrics) -> dict[str, float]:
    """The numbers that a step has, by name; what is not finite is left out."""
    values = {number.name: number.get(row) for number in STEP_NUMBERS}
    return {name: value for name, value in values.items() if value is not None and isfinite(value)}


def collect_evaluation_numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Success on held-out tasks by mode and category: {"dev sampled all": .5, "dev sampled action": .25}."""
    numbers: dict[str, float] = {}
    for mode, part in summary["modes"].items():
        rates = {"all": part["overall"], **part["categories"]}
        numbers |= {
            f"{summary['split']} {mode} {name}": rate["value"]
            for name, rate in rates.items()
            if rate["value"] is not None
        }
    return numbers
