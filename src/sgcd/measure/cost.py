"""What an evaluation cost: time, tokens and calls, and money where prices are known."""

from collections.abc import Mapping, Sequence
from typing import Any

from sgcd.endpoint.client import Endpoint
from sgcd.measure.trial_rows import TrialRow, count_successes

Cost = dict[str, Any]


def summarise_cost(rows: Sequence[TrialRow], seconds: float, endpoints: Mapping[str, Endpoint]) -> Cost:
    """{"trials", "successes", "seconds", "players": {name: part}, "money", "money_per_success"}.

    `seconds` is the time from the first trial to the last, side by side as they were played. A part has tokens_in and
    tokens_out; of a model behind an endpoint also calls, their seconds and the money, failed calls included and cached
    answers left out. Without a model the policy has played. Money is None where no endpoint has prices.
    """
    players: dict[str, Cost] = {name: endpoint_cost(endpoint) for name, endpoint in endpoints.items()}
    if "model" not in players:
        players = {"policy": policy_cost(rows), **players}
    amounts = [part["money"] for part in players.values() if part.get("money") is not None]
    money, successes = sum(amounts) if amounts else None, count_successes(rows)
    return {
        "trials": len(rows),
        "successes": successes,
        "seconds": round(seconds, 3),
        "players": players,
        "money": money,
        "money_per_success": None if money is None or not successes else money / successes,
    }


def endpoint_cost(endpoint: Endpoint) -> Cost:
    """All calls of an endpoint, those before a stop included."""
    tracker = endpoint.usage_tracker
    has_prices = bool(tracker.prices.prompt or tracker.prices.answer)
    return {
        "calls": tracker.num_calls,
        "seconds": round(tracker.total_seconds, 3),
        "tokens_in": tracker.total_usage.prompt_tokens,
        "tokens_out": tracker.total_usage.completion_tokens,
        "money": round(tracker.money, 9) if has_prices else None,
    }


def policy_cost(rows: Sequence[TrialRow]) -> Cost:
    """Tokens that a policy read, each once, and wrote; in trials that broke, too."""
    return {
        "tokens_in": sum(row.get("tokens_read", 0) for row in rows),
        "tokens_out": sum(row["tokens"] for row in rows),
    }
