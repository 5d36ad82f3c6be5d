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
from sgcd.storage.atomic import SCHEMA, append_rows, read_rows

_MILLION = 1_000_000


class RequestFailed(Exception):
    """A question that no usable answer came to; its kind is what is counted."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call.

    >>> Use(1000, 200).together
    1200
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def cost(self, prices: PriceSettings) -> float:
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.answer) / _MILLION


class UsageTracker:
    """Of one run. A call is made only when the worst that it may cost still fits into the budget."""

    def __init__(self, budget: BudgetSettings, prices: PriceSettings) -> None:
        self.budget = budget
        self.prices = prices
        self.num_calls = self.num_tokens = 0
        self.money = 0.0
        self._in_flight: list[TokenUsage] = []
        self._settled = asyncio.Condition()
        self._journal: TextIO | None = None
        self._reset_metrics()

    def _reset_metrics(self) -> None:
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._failed_requests: Counter[str] = Counter()
        self._usage = TokenUsage()
        self._money = 0.0
        self._seconds: list[float] = []

    def open_journal(self, path: Path) -> None:
        """Write a row for each call from now on; what stands there already was spent by this run before it stopped."""
        rows = read_rows(path)
        self.num_calls = len(rows)
        self.num_tokens = sum(row["prompt"] + row["answer"] for row in rows)
        self.money = sum(row["money"] for row in rows)
        append_rows(path, [])  # a torn last line goes
        self._journal = path.open("a", encoding="utf-8")

    def close(self) -> None:
        if self._journal:
            self._journal.close()
            self._journal = None

    # -- one call -----------------------------------------------------------------------------------------------------

    async def reserve(self, max_usage: TokenUsage) -> None:
        """Let a call begin, once those in flight leave room for it; refused when there is none without them either."""
        async with self._settled:
            await self._settled.wait_for(
                lambda: self._over_budget(max_usage, ()) or not self._over_budget(max_usage, self._in_flight)
            )
            if reason := self._over_budget(max_usage, ()):
                raise RequestFailed("budget", reason)
            self._in_flight.append(max_usage)

    async def settle(
        self, max_usage: TokenUsage, usage: TokenUsage, outcome: str, seconds: float, request: str
    ) -> None:
        """What a call came to. Where nobody says what it used, the worst is taken for it."""
        self._in_flight.remove(max_usage)
        cost = usage.cost(self.prices)
        self.num_calls, self.num_tokens, self.money = (
            self.num_calls + 1,
            self.num_tokens + usage.total,
            self.money + cost,
        )
        self._counts["calls"] += 1
        self._usage = TokenUsage(
            self._usage.prompt_tokens + usage.prompt_tokens, self._usage.completion_tokens + usage.completion_tokens
        )
        self._money += cost
        self._seconds.append(seconds)
        if outcome:
            self._failures[outcome] += 1
        if self._journal:
            call_row = {"at": round(time.time(), 3), "request": request[:12], "outcome": outcome or "answered"}
            usage_row = {
                "seconds": round(seconds, 6),
                "prompt": usage.prompt_tokens,
                "answer": usage.completion_tokens,
                "money": cost,
            }
            self._journal.write(json.dumps({"schema": SCHEMA, **call_row, **usage_row}) + "\n")
            self._journal.flush()
        async with self._settled:
            self._settled.notify_all()

    def _over_budget(self, max_usage: TokenUsage, in_flight: Sequence[TokenUsage]) -> str:
        """Which part of the budget a further call might exceed, in words; empty when it fits."""
        budget, pending = self.budget, [*in_flight, max_usage]
        tokens = self.num_tokens + sum(usage.total for usage in pending)
        money = self.money + sum(usage.cost(self.prices) for usage in pending)
        if budget.calls is not None and self.num_calls + len(pending) > budget.calls:
            return f"{self.num_calls} calls were made, budget.calls is {budget.calls}"
        if budget.tokens is not None and tokens > budget.tokens:
            return f"{self.num_tokens} tokens were used, budget.tokens is {budget.tokens}"
        if budget.money is not None and money > budget.money:
            return f"{self.money:.4g} was spent, budget.money is {budget.money:g}"
        return ""

    # -- a step's figures ---------------------------------------------------------------------------------------------

    def count(self, event: str) -> None:
        """asked; cached: answered without a call; repeated: a call more; forgotten: the cache could not be used."""
        self._counts[event] += 1

    def count_failed(self, kind: str) -> None:
        """A question stays unanswered."""
        self._failed_requests[kind] += 1

    def pop_metrics(self) -> Mapping[str, Any]:
        """Figures since the last split, and what the run has spent so far."""
        metrics = {
            **{name: self._counts[name] for name in ("asked", "cached", "calls", "repeated", "forgotten")},
            "failures": dict(self._failures.most_common()),
            "unanswered": dict(self._failed_requests.most_common()),
            "tokens": {"prompt": self._usage.prompt_tokens, "answer": self._usage.completion_tokens},
            "money": round(self._money, 9),
            "seconds": _latency_metrics(self._seconds),
            "spent": {"calls": self.num_calls, "tokens": self.num_tokens, "money": round(self.money, 9)},
        }
        self._reset_metrics()
        return metrics


def _latency_metrics(seconds: Sequence[float]) -> dict[str, float | None]:
    """Latencies of calls, the failed ones too."""
    ordered = sorted(seconds)
    if not ordered:
        return {"sum": 0.0, "median": None, "p90": None, "max": None}
    quantiles = {"median": 0.5, "p90": 0.9}
    values = {
        name: ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] for name, quantile in quantiles.items()
    }
    return {name: round(value, 6) for name, value in {"sum": sum(ordered), **values, "max": ordered[-1]}.items()}
