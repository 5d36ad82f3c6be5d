"""A rollout while it is played: what was sampled and what was heard, appended and never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sgcd.act.environment import InitialMessages, PrivateLiterals, SampledTurn
from sgcd.chat import EncodedPrompt
from sgcd.records import (
    EndReason,
    Floats,
    Message,
    ParsedTurn,
    Rollout,
    Task,
    TokenIds,
    TokenKind,
    TokenKinds,
    Turn,
    Verdict,
)


@dataclass(slots=True)
class RolloutRecorder:
    """Grows turn by turn; `rollout` reads off the record at any moment, also after a break."""

    task: Task
    sibling: int
    seed: int
    prompt: TokenIds = field(default_factory=lambda: np.zeros(0, np.int32))
    reference_position: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    messages: list[Message] = field(default_factory=list[Message])
    turns: list[Turn] = field(default_factory=list[Turn])
    response_length: int = 0
    """Tokens of the response so far."""
    end_reason: EndReason | None = None
    verdict: Verdict | None = None
    private: tuple[str, ...] = ()
    private_kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    truncations: dict[str, int] = field(default_factory=dict[str, int])
    _response_ids: list[TokenIds] = field(default_factory=list[TokenIds])
    _token_kinds: list[TokenKinds] = field(default_factory=list[TokenKinds])
    _sampling_logprobs: list[Floats] = field(default_factory=list[Floats])

    def set_prompt(self, initial: InitialMessages, encoded: EncodedPrompt) -> None:
        """The prompt stands."""
        self.prompt, self.reference_position, self.tools = encoded.token_ids, encoded.reference_position, initial.tools
        self.messages.extend(encoded.messages)

    def add_turn(
        self, sampled: SampledTurn, parsed: ParsedTurn, token_kinds: TokenKinds, message: Message, roundtrips: bool
    ) -> None:
        """The policy wrote a turn."""
        self.turns.append(
            Turn(
                self.response_length,
                self.response_length + len(sampled.token_ids),
                parsed.calls,
                parsed.malformed,
                roundtrips,
            )
        )
        self._append(sampled.token_ids, token_kinds, sampled.logprobs)
        self.messages.append(message)

    def mark_calls(self, malformed: str, call_errors: Sequence[bool]) -> None:
        """What became of the last turn's calls."""
        last = self.turns[-1]
        calls = tuple(replace(call, is_error=is_error) for call, is_error in zip(last.calls, call_errors, strict=True))
        self.turns[-1] = replace(last, calls=calls, malformed=malformed)

    def add_reply(self, glue: TokenIds, messages: Sequence[Message]) -> None:
        """The environment answered, in the template's words."""
        self._append(glue, np.full(len(glue), TokenKind.GLUE, np.uint8), np.zeros(len(glue), np.float32))
        self.messages.extend(messages)

    def set_private(self, literals: PrivateLiterals) -> None:
        """What the environment declared, with or without kinds."""
        if isinstance(literals, Mapping):
            self.private_kinds = {value: kind for kind, values in literals.items() for value in values}
            self.private = tuple(self.private_kinds)
        else:
            self.private = tuple(literals)

    def count_truncation(self, limit: str) -> None:
        """A limit cut something."""
        self.truncations[limit] = self.truncations.get(limit, 0) + 1

    def build_rollout(self, broken: str) -> Rollout:
        """The record of what was played."""
        response = np.concatenate([np.zeros(0, np.int32), *self._response_ids])
        response_mask = np.zeros(len(response), np.bool_)
        for turn in self.turns:
            response_mask[turn.start : turn.stop] = True
        return Rollout(
            task=self.task.id,
            category=self.task.category,
            sibling=self.sibling,
            seed=self.seed,
            prompt=self.prompt,
            reference_position=self.reference_position,
            response=response,
            response_mask=response_mask,
            token_kinds=np.concatenate([np.zeros(0, np.uint8), *self._token_kinds]),
            sampling_logprobs=np.concatenate([np.zeros(0, np.float32), *self._sampling_logprobs]),
            turns=tuple(self.turns),
            messages=tuple(self.messages),
            tools=self.tools,
            end_reason="broken" if broken or self.end_reason is None else self.end_reason,
            verdict=None if broken else self.verdict,
            truncations=self.truncations,
            broken=broken,
            private=self.private,
            private_kinds=self.private_kinds,
        )

    def _append(self, ids: TokenIds, token_kinds: TokenKinds, logprobs: Floats) -> None:
        self._response_ids.append(ids)
        self._token_kinds.append(token_kinds)
        self._sampling_logprobs.append(logprobs)
        self.response_length += len(ids)
