"""A benchmark figure: cases, each with a target that it may miss by a tenth."""

from dataclasses import dataclass
from typing import Any

_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class BenchCase:
    """One number and its target."""

    name: str
    figure: float | None
    """None if it was not measured."""
    target: float
    is_minimum: bool
    """True if the target is a minimum, False if it is a maximum."""

    @property
    def is_passed(self) -> bool | None:
        if self.figure is None:
            return None
        return (
            self.figure >= self.target * (1 - _TOLERANCE)
            if self.is_minimum
            else self.figure <= self.target * (1 + _TOLERANCE)
        )

    @property
    def target_ratio(self) -> float:
        """Distance from the target; above one misses it."""
        if self.figure is None:
            return -1.0
        return self.target / max(self.figure, 1e-12) if self.is_minimum else self.figure / self.target

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "figure": self.figure,
            "target": self.target,
            "least": self.is_minimum,
            "pass": self.is_passed,
        }


def summarize_cases(title: str, cases: list[BenchCase], note: str = "") -> dict[str, Any]:
    """`figure` and `target` are those of the worst case, `pass` holds if all cases pass; `cases` has all of them."""
    measured = [case for case in cases if case.figure is not None]
    worst = max(measured, key=lambda case: case.target_ratio, default=None)
    return {
        "title": title,
        "figure": worst.figure if worst else None,
        "target": worst.target if worst else None,
        "pass": all(case.is_passed for case in measured) if measured else None,
        "cases": [case.to_json() for case in cases],
        "note": note,
    }


def at_most(name: str, value: float | None, target: float) -> BenchCase:
    return BenchCase(name, value, target, is_minimum=False)


def at_least(name: str, value: float | None, target: float) -> BenchCase:
    return BenchCase(name, value, target, is_minimum=True)
