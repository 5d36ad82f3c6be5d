"""What a model said: words, calls, why it ended; as JSON for the cache and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

_OLD_NAMES = {"finish": "finish_reason", "tokens": "num_tokens"}
"""Keys of caches that sgcd 0.1 wrote."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A native tool call, its arguments as the text that came."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model said.

    >>> Answer("hello").whole
    True
    """

    text: str
    finish_reason: str = "stop"
    """Why it ended: stop, tool_calls, length, content_filter; refusal where the server marks the text as one."""
    calls: tuple[ToolCall, ...] = ()
    num_tokens: int = 0
    """That the model wrote, thinking included; 0 where the server does not say."""

    @property
    def is_complete(self) -> bool:
        """Whether it ended by itself."""
        return self.finish_reason != "length"

    @property
    def is_empty(self) -> bool:
        return not self.text.strip() and not self.calls

    def contains(self, key: str) -> bool:
        call_texts = (part for call in self.calls for part in (call.id, call.name, call.arguments))
        return any(key in text for text in (self.text, *call_texts))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Completion":
        """From what `plain` gave, by this version or by one that knew no calls."""
        fields = {_OLD_NAMES.get(name, name): value for name, value in data.items()}
        calls = cast("list[dict[str, str]]", fields.pop("calls", []))
        return cls(**fields, calls=tuple(ToolCall(**call) for call in calls))
