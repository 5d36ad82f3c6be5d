"""What a figure of the benchmark is: cases with a target each, held against it with a tenth of slack."""

from dataclasses import asdict, dataclass
from typing import Any

SLACK = 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """One number, and what was wanted."""

    name: str
    figure: float | None
    """None where it was not measured."""
    target: float
    least: bool
    """Whether the target is the least that is wanted, or the most."""

    @property
    def passed(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure >= self.target * (1 - SLACK) if self.least else self.figure <= self.target * (1 + SLACK)

    @property
    def share(self) -> float:
        """How far from the target: above one is beyond it."""
        if self.figure is None:
            return -1.0
        return self.target / max(self.figure, 1e-12) if self.least else self.figure / self.target


def figure(title: str, cases: list[Case], note: str = "") -> dict[str, Any]:
    """`figure`, `target` and `pass` are those of the case that is nearest to failing; all of them stand below it."""
    measured = [case for case in cases if case.figure is not None]
    worst = max(measured, key=lambda case: case.share, default=None)
    told = [{**asdict(case), "pass": case.passed} for case in cases]
    return {
        "title": title,
        "figure": worst.figure if worst else None,
        "target": worst.target if worst else None,
        "pass": all(case.passed for case in measured) if measured else None,
        "cases": told,
        "note": note,
    }


def most(name: str, found: float | None, target: float) -> Case:
    return Case(name, found, target, least=False)


def least(name: str, found: float | None, target: float) -> Case:
    return Case(name, found, target, least=True)
