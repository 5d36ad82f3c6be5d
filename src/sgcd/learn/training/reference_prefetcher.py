"""References are asked for as soon as a group is whole, while the next ones are still being played."""

import asyncio
from collections.abc import Iterable
from types import TracebackType

from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.records import Group


class ReferencePrefetcher:
    """The references of one step. What was asked for in vain is called off when the step leaves it."""

    def __init__(self, contrast: ReferenceBuilder | None) -> None:
        self._contrast = contrast
        """None for a method that needs no reference."""
        self._asked: dict[str, asyncio.Task[ReferenceResult]] = {}

    async def __aenter__(self) -> "ReferencePrefetcher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for task in self._asked.values():
            task.cancel()  # does nothing to a task that is done
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    def prefetch(self, groups: Iterable[Group]) -> None:
        """Start a writer for each group that may be learnt from."""
        for group in groups:
            if self._contrast and group.mixed and group.task.id not in self._asked:
                self._asked[group.task.id] = asyncio.create_task(self._contrast.build(group))

    async def get(self, group: Group) -> ReferenceResult | None:
        """What came of a group; None for a method that needs no reference."""
        self.prefetch([group])
        return await self._asked[group.task.id] if self._contrast else None
