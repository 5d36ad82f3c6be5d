"""What a figure of the benchmark is: cases with a target each, held against it with a tenth of slack."""

from dataclasses import asdict, dataclass
from typing import Any

_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class BenchCase:
    """One number, and what was wanted."""

    name: str
    figure: float | None
    """None where it was not measured."""
    target: float
    least: bool
    """Whether the target is the least that is wanted, or the most."""

    @property
    def is_passed(self) -> bool | None:
        if self.figure is None:
            return None
        return (
            self.figure >= self.target * (1 - _TOLERANCE)
            if self.least
            else self.figure <= self.target * (1 + _TOLERANCE)
        )

    @property
    def target_ratio(self) -> float:
        """How far from the target: above one is beyond it."""
        if self.figure is None:
            return -1.0
        return self.target / max(self.figure, 1e-12) if self.least else self.figure / self.target


def summarize_cases(title: str, cases: list[BenchCase], note: str = "") -> dict[str, Any]:
    """`figure`, `target` and `pass` are those of the case that is nearest to failing; all of them stand below it."""
    measured = [case for case in cases if case.figure is not None]
    worst = max(measured, key=lambda case: case.target_ratio, default=None)
    case_rows = [{**asdict(case), "pass": case.is_passed} for case in cases]
    return {
        "title": title,
        "figure": worst.figure if worst else None,
        "target": worst.target if worst else None,
        "pass": all(case.is_passed for case in measured) if measured else None,
        "cases": case_rows,
        "note": note,
    }


def at_most(name: str, value: float | None, target: float) -> BenchCase:
    return BenchCase(name, value, target, least=False)


def at_least(name: str, value: float | None, target: float) -> BenchCase:
    return BenchCase(name, value, target, least=True)
