"""What an endpoint was asked and what it came to: counts by kind, latencies, tokens, money; a budget that holds."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sgcd.endpoint.settings import BudgetSettings, PriceSettings
from sgcd.files import SCHEMA, append_rows, read_rows

MILLION = 1_000_000


class Unanswered(Exception):
    """A question that no usable answer came to; its kind is what is counted."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Use:
    """Tokens of one call.

    >>> Use(1000, 200).together
    1200
    """

    prompt: int = 0
    answer: int = 0

    @property
    def together(self) -> int:
        return self.prompt + self.answer

    def money(self, prices: PriceSettings) -> float:
        return (self.prompt * prices.prompt + self.answer * prices.answer) / MILLION


class Account:
    """Of one run. A call is made only when the worst that it may cost still fits into the budget."""

    def __init__(self, budget: BudgetSettings, prices: PriceSettings) -> None:
        self.budget = budget
        self.prices = prices
        self.calls = self.tokens = 0
        self.money = 0.0
        self._flying: list[Use] = []
        self._settled = asyncio.Condition()
        self._journal: TextIO | None = None
        self._clear()

    def _clear(self) -> None:
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._unanswered: Counter[str] = Counter()
        self._use = Use()
        self._spent = 0.0
        self._seconds: list[float] = []

    def keep(self, path: Path) -> None:
        """Write a row for each call from now on; what stands there already was spent by this run before it stopped."""
        rows = read_rows(path)
        self.calls = len(rows)
        self.tokens = sum(row["prompt"] + row["answer"] for row in rows)
        self.money = sum(row["money"] for row in rows)
        append_rows(path, [])  # a torn last line goes
        self._journal = path.open("a", encoding="utf-8")

    def close(self) -> None:
        if self._journal:
            self._journal.close()
            self._journal = None

    # -- one call -----------------------------------------------------------------------------------------------------

    async def reserve(self, worst: Use) -> None:
        """Let a call begin, once those in flight leave room for it; refused when there is none without them either."""
        async with self._settled:
            await self._settled.wait_for(lambda: self._lacking(worst, ()) or not self._lacking(worst, self._flying))
            if lacking := self._lacking(worst, ()):
                raise Unanswered("budget", lacking)
            self._flying.append(worst)

    async def settle(self, worst: Use, use: Use, outcome: str, seconds: float, request: str) -> None:
        """What a call came to. Where nobody says what it used, the worst is taken for it."""
        self._flying.remove(worst)
        money = use.money(self.prices)
        self.calls, self.tokens, self.money = self.calls + 1, self.tokens + use.together, self.money + money
        self._counts["calls"] += 1
        self._use = Use(self._use.prompt + use.prompt, self._use.answer + use.answer)
        self._spent += money
        self._seconds.append(seconds)
        if outcome:
            self._failures[outcome] += 1
        if self._journal:
            told = {"at": round(time.time(), 3), "request": request[:12], "outcome": outcome or "answered"}
            used = {"seconds": round(seconds, 6), "prompt": use.prompt, "answer": use.answer, "money": money}
            self._journal.write(json.dumps({"schema": SCHEMA, **told, **used}) + "\n")
            self._journal.flush()
        async with self._settled:
            self._settled.notify_all()

    def _lacking(self, worst: Use, flying: Sequence[Use]) -> str:
        """Which part of the budget a further call might exceed, in words; empty when it fits."""
        budget, using = self.budget, [*flying, worst]
        tokens = self.tokens + sum(use.together for use in using)
        money = self.money + sum(use.money(self.prices) for use in using)
        if budget.calls is not None and self.calls + len(using) > budget.calls:
            return f"{self.calls} calls were made, budget.calls is {budget.calls}"
        if budget.tokens is not None and tokens > budget.tokens:
            return f"{self.tokens} tokens were used, budget.tokens is {budget.tokens}"
        if budget.money is not None and money > budget.money:
            return f"{self.money:.4g} was spent, budget.money is {budget.money:g}"
        return ""

    # -- a step's figures ---------------------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        """asked; cached: answered without a call; repeated: a call more; forgotten: the cache could not be used."""
        self._counts[what] += 1

    def give_up(self, kind: str) -> None:
        """A question stays unanswered."""
        self._unanswered[kind] += 1

    def split(self) -> Mapping[str, Any]:
        """Figures since the last split, and what the run has spent so far."""
        figures = {
            **{name: self._counts[name] for name in ("asked", "cached", "calls", "repeated", "forgotten")},
            "failures": dict(self._failures.most_common()),
            "unanswered": dict(self._unanswered.most_common()),
            "tokens": {"prompt": self._use.prompt, "answer": self._use.answer},
            "money": round(self._spent, 9),
            "seconds": _spread(self._seconds),
            "spent": {"calls": self.calls, "tokens": self.tokens, "money": round(self.money, 9)},
        }
        self._clear()
        return figures


def _spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Latencies of calls, the failed ones too."""
    ranked = sorted(seconds)
    if not ranked:
        return {"sum": 0.0, "median": None, "p90": None, "max": None}
    shares = {"median": 0.5, "p90": 0.9}
    at = {name: ranked[min(len(ranked) - 1, int(share * len(ranked)))] for name, share in shares.items()}
    return {name: round(value, 6) for name, value in {"sum": sum(ranked), **at, "max": ranked[-1]}.items()}
