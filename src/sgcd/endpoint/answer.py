"""What a model said: words, calls, why it ended; as JSON for the cache and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Called:
    """A native tool call, its arguments as the text that came."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said.

    >>> Answer("hello").whole
    True
    """

    text: str
    finish: str = "stop"
    """Why it ended: stop, tool_calls, length, content_filter; refusal where the server marks the text as one."""
    calls: tuple[Called, ...] = ()
    tokens: int = 0
    """That the model wrote, thinking included; 0 where the server does not say."""

    @property
    def whole(self) -> bool:
        """Whether it ended by itself."""
        return self.finish != "length"

    @property
    def empty(self) -> bool:
        return not self.text.strip() and not self.calls

    def holds(self, key: str) -> bool:
        called = (part for call in self.calls for part in (call.id, call.name, call.arguments))
        return any(key in text for text in (self.text, *called))

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def restore(cls, told: Mapping[str, Any]) -> "Answer":
        """From what `plain` gave, by this version or by one that knew no calls."""
        known = dict(told)
        calls = cast("list[dict[str, str]]", known.pop("calls", []))
        return cls(**known, calls=tuple(Called(**call) for call in calls))
