"""Usage of an endpoint: counts by kind, latencies, tokens and money, and the budget that limits them."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sgcd.endpoint.settings import BudgetSettings, PriceSettings
from sgcd.storage.atomic import SCHEMA, writing
from sgcd.storage.metrics import CallSeconds, EndpointUsage, SpentBudget, TokenCounts
from sgcd.storage.rows import append_rows, read_rows, to_checked_line

_MILLION = 1_000_000


class RequestFailed(Exception):
    """A request without a usable answer; failures are counted by `kind`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call.

    >>> TokenUsage(1000, 200).total
    1200
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)

    def cost(self, prices: PriceSettings) -> float:
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.answer) / _MILLION


class UsageTracker:
    """Counts one run's calls. A call starts only when its highest possible cost still fits into the budget."""

    def __init__(self, budget: BudgetSettings, prices: PriceSettings) -> None:
        self.budget = budget
        self.prices = prices
        self.num_calls, self.total_usage, self.total_seconds = 0, TokenUsage(), 0.0
        self.money = 0.0
        self._in_flight: list[TokenUsage] = []
        self._settled = asyncio.Condition()
        self._journal: BinaryIO | None = None
        self._journal_path = Path()
        self._reset_metrics()

    def _reset_metrics(self) -> None:
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._failed_requests: Counter[str] = Counter()
        self._usage = TokenUsage()
        self._money = 0.0
        self._seconds: list[float] = []

    def open_journal(self, path: Path) -> None:
        """Write a row for each call from now on; rows that exist count as spent before the run stopped."""
        rows = read_rows(path)
        self.num_calls = len(rows)
        self.total_usage = TokenUsage(sum(row["prompt"] for row in rows), sum(row["answer"] for row in rows))
        self.total_seconds = sum(row["seconds"] for row in rows)
        self.money = sum(row["money"] for row in rows)
        append_rows(path, [])  # drops a torn last line
        self._journal, self._journal_path = path.open("ab"), path

    def close(self) -> None:
        if self._journal:
            journal, self._journal = self._journal, None
            with writing(self._journal_path):
                journal.close()

    # -- one call -----------------------------------------------------------------------------------------------------

    async def reserve(self, max_usage: TokenUsage) -> None:
        """Wait until the calls in flight leave room for another. Raises RequestFailed if the budget itself has none."""
        async with self._settled:
            await self._settled.wait_for(
                lambda: self._over_budget(max_usage, ()) or not self._over_budget(max_usage, self._in_flight)
            )
            if reason := self._over_budget(max_usage, ()):
                raise RequestFailed("budget", reason)
            self._in_flight.append(max_usage)

    async def settle(
        self, max_usage: TokenUsage, usage: TokenUsage, *, outcome: str, seconds: float, request_hash: str
    ) -> None:
        """Count a finished call; `outcome` is empty when it was answered, else the kind of its failure."""
        self._in_flight.remove(max_usage)
        cost = usage.cost(self.prices)
        self.num_calls, self.money = self.num_calls + 1, self.money + cost
        self.total_usage, self.total_seconds = self.total_usage.plus(usage), self.total_seconds + seconds
        self._counts["calls"] += 1
        self._usage = self._usage.plus(usage)
        self._money += cost
        self._seconds.append(seconds)
        if outcome:
            self._failures[outcome] += 1
        if self._journal:
            call_row = {"at": round(time.time(), 3), "request": request_hash[:12], "outcome": outcome or "answered"}
            usage_row = {
                "seconds": round(seconds, 6),
                "prompt": usage.prompt_tokens,
                "answer": usage.completion_tokens,
                "money": cost,
            }
            row = {"schema": SCHEMA, **call_row, **usage_row}
            with writing(self._journal_path):
                self._journal.write(to_checked_line(self._journal_path.name, self.num_calls, row))
                self._journal.flush()
        async with self._settled:
            self._settled.notify_all()

    @property
    def num_tokens(self) -> int:
        return self.total_usage.total

    def _over_budget(self, max_usage: TokenUsage, in_flight: Sequence[TokenUsage]) -> str:
        """Name the part of the budget that a further call might exceed; empty when the call fits."""
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

    # -- metrics of a step ---------------------------------------------------------------------------------------------

    def count(self, event: str) -> None:
        """Count an event: requests, cached (no call was made), repeated (a further call), forgotten (no cache)."""
        self._counts[event] += 1

    def count_failed(self, kind: str) -> None:
        """Count a request without an answer."""
        self._failed_requests[kind] += 1

    def pop_metrics(self) -> EndpointUsage:
        """Usage since the previous call of this method, and the totals of the run."""
        metrics = EndpointUsage(
            requests=self._counts["requests"],
            cached=self._counts["cached"],
            calls=self._counts["calls"],
            repeated=self._counts["repeated"],
            forgotten=self._counts["forgotten"],
            failures=dict(self._failures.most_common()),
            unanswered=dict(self._failed_requests.most_common()),
            tokens=TokenCounts(prompt=self._usage.prompt_tokens, answer=self._usage.completion_tokens),
            money=round(self._money, 9),
            seconds=_call_seconds(self._seconds),
            spent=SpentBudget(calls=self.num_calls, tokens=self.num_tokens, money=round(self.money, 9)),
        )
        self._reset_metrics()
        return metrics


def _call_seconds(seconds: Sequence[float]) -> CallSeconds:
    if not seconds:
        return CallSeconds()
    ordered = sorted(seconds)

    def quantile(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 6)

    return CallSeconds(sum=round(sum(ordered), 6), median=quantile(0.5), p90=quantile(0.9), max=round(ordered[-1], 6))
