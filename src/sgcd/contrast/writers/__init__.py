"""`Writer`: turns chosen traces into the text of a credit reference."""

from collections.abc import Sequence
from typing import Protocol

from sgcd.contrast.trace import Trace


class Writer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def reads_steps(self) -> bool:
        """Whether it reads `Trace.steps`, which are built for such a writer alone."""
        ...

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        """The text. `refused` has the cause of each refused answer to the same traces. Raises `WriterFailed`."""
        ...


class WriterFailed(Exception):
    """Why a writer has no text. The metrics count the words up to the first colon."""

    def __init__(self, cause: str, may_retry: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.may_retry = may_retry
        """Whether the writer may do better when it reads the cause."""
