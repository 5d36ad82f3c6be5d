"""Record a rollout while it is played: what was sampled and what came back is appended and never changed."""

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

_NO_IDS: TokenIds = np.zeros(0, np.int32)
_NO_KINDS: TokenKinds = np.zeros(0, np.uint8)
_NO_TOKENS = SampledTurn(_NO_IDS, np.zeros(0, np.float32), hit_end_token=True)
_TRUNCATION_OF_REASON: Mapping[EndReason, str] = {"turn_limit": "turns", "token_limit": "tokens"}


@dataclass(slots=True)
class RolloutRecorder:
    """One rollout to play, which it collects turn by turn. It is played once.

    `build_rollout` needs a verdict, or `finish("broken", cause)`.

    >>> RolloutRecorder(Task("t1", "action", {}), sibling=2, seed=77).sibling
    2

    A chat model behind an endpoint has messages and no tokens: its turns and replies are added without them.
    """

    task: Task
    sibling: int
    """The index among its siblings, or the number of the trial."""
    seed: int
    prompt: TokenIds = field(default_factory=lambda: _NO_IDS)
    reference_position: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    messages: list[Message] = field(default_factory=list[Message])
    turns: list[Turn] = field(default_factory=list[Turn])
    response_length: int = 0
    """Tokens of the response so far."""
    end_reason: EndReason | None = None
    """None while the rollout is being played."""
    broken: str = ""
    verdict: Verdict | None = None
    private: tuple[str, ...] = ()
    private_kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    truncations: dict[str, int] = field(default_factory=dict[str, int])
    _response_ids: list[TokenIds] = field(default_factory=list[TokenIds])
    _token_kinds: list[TokenKinds] = field(default_factory=list[TokenKinds])
    _sampling_logprobs: list[Floats] = field(default_factory=list[Floats])

    def add_prompt(self, initial: InitialMessages, encoded: EncodedPrompt | None = None) -> None:
        """Add the first messages and the tools, and for a policy the encoded prompt."""
        self.tools = initial.tools
        self.messages.extend(encoded.messages if encoded else initial.messages)
        if encoded:
            self.prompt, self.reference_position = encoded.token_ids, encoded.reference_position

    def add_turn(
        self,
        turn: ParsedTurn,
        message: Message,
        *,
        sampled: SampledTurn = _NO_TOKENS,
        token_kinds: TokenKinds = _NO_KINDS,
        roundtrips: bool = True,
    ) -> None:
        """Add a turn of the model: what was parsed, its message, and for a policy the sampled tokens."""
        start, stop = self.response_length, self.response_length + len(sampled.token_ids)
        self.turns.append(Turn(start, stop, turn.calls, turn.malformed, roundtrips=roundtrips, text=turn.text))
        self._append(sampled.token_ids, token_kinds, sampled.logprobs)
        self.messages.append(message)

    def add_call_results(self, turn: ParsedTurn) -> None:
        """Add to the last turn which of its calls failed, or why the turn was refused."""
        self.turns[-1] = replace(self.turns[-1], calls=turn.calls, malformed=turn.malformed)

    def add_reply(self, messages: Sequence[Message], token_ids: TokenIds = _NO_IDS) -> None:
        """Add the environment's messages, and for a policy the tokens that the template makes of them."""
        num_tokens = len(token_ids)
        self._append(token_ids, np.full(num_tokens, TokenKind.GLUE, np.uint8), np.zeros(num_tokens, np.float32))
        self.messages.extend(messages)

    def add_private(self, literals: PrivateLiterals) -> None:
        """Add the literals that the environment declares private, with or without kinds."""
        if isinstance(literals, Mapping):
            self.private_kinds = {value: kind for kind, values in literals.items() for value in values}
            self.private = tuple(self.private_kinds)
        else:
            self.private = tuple(literals)

    def add_verdict(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def add_truncation(self, limit: str, times: int = 1) -> None:
        """Count that a limit cut something."""
        if times:
            self.truncations[limit] = self.truncations.get(limit, 0) + times

    def finish(self, reason: EndReason, broken: str = "") -> None:
        """End the rollout. A limit that ends it counts as a truncation; `broken` is the cause of a broken rollout."""
        self.end_reason, self.broken = reason, broken
        if reason in _TRUNCATION_OF_REASON:
            self.add_truncation(_TRUNCATION_OF_REASON[reason])

    def build_rollout(self) -> Rollout:
        """The record of what was played."""
        response = np.concatenate([_NO_IDS, *self._response_ids])
        response_mask = np.zeros(len(response), np.bool_)
        for turn in self.turns:
            response_mask[turn.start : turn.stop] = True
        return Rollout(
            task=self.task.id,
            category=self.task.category,
            needs_tool=self.task.needs_tool,
            sibling=self.sibling,
            seed=self.seed,
            prompt=self.prompt,
            reference_position=self.reference_position,
            response=response,
            response_mask=response_mask,
            token_kinds=np.concatenate([_NO_KINDS, *self._token_kinds]),
            sampling_logprobs=np.concatenate([np.zeros(0, np.float32), *self._sampling_logprobs]),
            turns=tuple(self.turns),
            messages=tuple(self.messages),
            tools=self.tools,
            end_reason=self.end_reason or "broken",
            verdict=None if self.broken else self.verdict,
            truncations=self.truncations,
            broken=self.broken,
            private=self.private,
            private_kinds=self.private_kinds,
        )

    def _append(self, ids: TokenIds, token_kinds: TokenKinds, logprobs: Floats) -> None:
        self._response_ids.append(ids)
        self._token_kinds.append(token_kinds)
        self._sampling_logprobs.append(logprobs)
        self.response_length += len(ids)
