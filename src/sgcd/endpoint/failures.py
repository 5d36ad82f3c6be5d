"""In how many ways a call can fail, and which of them may pass."""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time

PASSING = frozenset({"timeout", "connection", "cut", "rate limit", "server", "unreadable"})
"""Worth another call. The others are: key, refused, huge, other; and budget, for which no call was made."""
STATUS = {
    400: "it does not understand the request",
    401: "it does not accept the key",
    403: "the key may not do this",
    404: "no such model or path",
    413: "the request is too long",
    422: "it does not understand the request",
}


class Failure(Exception):
    """One call that brought no answer. The detail is ours: what a server writes into an error is never repeated."""

    def __init__(self, kind: str, detail: str, wait: float | None = None, billed: bool = False) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.wait = wait
        """Seconds that the server asks to wait."""
        self.billed = billed
        """Whether tokens may have been used all the same."""


def failure_of(problem: Exception, reading: bool) -> Failure:
    """What an exception amounts to; `reading` says that the server had begun to answer."""
    import openai

    if isinstance(problem, TimeoutError | openai.APITimeoutError) or "Timeout" in type(problem).__name__:
        return Failure("timeout", "no whole answer in time", billed=True)
    if isinstance(problem, openai.APIStatusError):
        return of_status(problem.status_code, problem.response.headers)
    if isinstance(problem, openai.APIConnectionError):
        return Failure("connection", "the server could not be reached, or hung up")
    if reading:
        return Failure("cut", "the answer broke off", billed=True)
    return Failure("other", type(problem).__name__)


def of_status(status: int, headers: Mapping[str, str]) -> Failure:
    if status == 429:
        return Failure("rate limit", "too many calls", wait_of(headers))
    if status >= 500 or status in (408, 409, 425):
        return Failure("server", f"status {status}", wait_of(headers))
    return Failure("refused", f"status {status}" + (f", {STATUS[status]}" if status in STATUS else ""))


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of a retry-after, which may be a number or a date; None where there is none that makes sense.

    >>> wait_of({"retry-after": "1.5"}), wait_of({"retry-after": "soon"})
    (1.5, None)
    """
    told = headers.get("retry-after", "").strip()
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
