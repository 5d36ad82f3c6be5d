"""Kinds of failed calls, and which of them are worth another call."""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time

TRANSIENT_FAILURES = frozenset({"timeout", "connection", "cut", "rate limit", "server", "unreadable"})
"""Kinds that are worth another call. The others: key, refused, huge, other; and budget, where no call was made."""
_STATUS_REASONS = {
    400: "it does not understand the request",
    401: "it does not accept the key",
    403: "the key may not do this",
    404: "no such model or path",
    413: "the request is too long",
    422: "it does not understand the request",
}


class AttemptFailed(Exception):
    """One call without an answer. `detail` never repeats text of the server, which could hold a secret."""

    def __init__(self, kind: str, detail: str, retry_after: float | None = None, *, billed: bool = False) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        """Seconds that the server wants the client to wait."""
        self.billed = billed
        """Whether the call may have used tokens."""


def failure_from_exception(error: Exception, response_started: bool) -> AttemptFailed:
    """Classify an exception; `response_started`: the server had begun to answer."""
    import openai

    if isinstance(error, TimeoutError | openai.APITimeoutError) or "Timeout" in type(error).__name__:
        return AttemptFailed("timeout", "no whole answer in time", billed=True)
    if isinstance(error, openai.APIStatusError):
        return failure_from_status(error.status_code, error.response.headers)
    if isinstance(error, openai.APIConnectionError):
        return AttemptFailed("connection", "the server could not be reached, or hung up")
    if response_started:
        return AttemptFailed("cut", "the answer broke off", billed=True)
    return AttemptFailed("other", type(error).__name__)


def failure_from_status(status: int, headers: Mapping[str, str]) -> AttemptFailed:
    if status == 429:
        return AttemptFailed("rate limit", "too many calls", retry_after_seconds(headers))
    if status >= 500 or status in (408, 409, 425):
        return AttemptFailed("server", f"status {status}", retry_after_seconds(headers))
    return AttemptFailed(
        "refused", f"status {status}" + (f", {_STATUS_REASONS[status]}" if status in _STATUS_REASONS else "")
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds of the retry-after header, a number or a date; None without a valid one.

    >>> retry_after_seconds({"retry-after": "1.5"}), retry_after_seconds({"retry-after": "soon"})
    (1.5, None)
    """
    header = headers.get("retry-after", "").strip()
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
