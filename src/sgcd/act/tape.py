"""A rollout while it is played: what was sampled and what was heard, appended and never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sgcd.act.environment import Opening, Private, Sampled
from sgcd.chat import Opened
from sgcd.records import Ending, Floats, Ids, Kind, Kinds, Message, Rollout, Said, Task, Turn, Verdict


@dataclass(slots=True)
class Tape:
    """Grows turn by turn; `rollout` reads off the record at any moment, also after a break."""

    task: Task
    sibling: int
    seed: int
    prompt: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    insert_at: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    messages: list[Message] = field(default_factory=list[Message])
    turns: list[Turn] = field(default_factory=list[Turn])
    length: int = 0
    """Tokens of the response so far."""
    ending: Ending | None = None
    verdict: Verdict | None = None
    private: tuple[str, ...] = ()
    private_kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    cuts: dict[str, int] = field(default_factory=dict[str, int])
    _ids: list[Ids] = field(default_factory=list[Ids])
    _kinds: list[Kinds] = field(default_factory=list[Kinds])
    _logp: list[Floats] = field(default_factory=list[Floats])

    def open(self, opening: Opening, opened: Opened) -> None:
        """The prompt stands."""
        self.prompt, self.insert_at, self.tools = opened.ids, opened.insert_at, opening.tools
        self.messages.extend(opened.messages)

    def say(self, sampled: Sampled, said: Said, kinds: Kinds, message: Message, exact: bool) -> None:
        """The policy wrote a turn."""
        self.turns.append(Turn(self.length, self.length + len(sampled.ids), said.calls, said.malformed, exact))
        self._append(sampled.ids, kinds, sampled.logp)
        self.messages.append(message)

    def judge(self, malformed: str, failed: Sequence[bool]) -> None:
        """What became of the last turn's calls."""
        last = self.turns[-1]
        calls = tuple(replace(call, failed=flag) for call, flag in zip(last.calls, failed, strict=True))
        self.turns[-1] = replace(last, calls=calls, malformed=malformed)

    def hear(self, glue: Ids, messages: Sequence[Message]) -> None:
        """The environment answered, in the template's words."""
        self._append(glue, np.full(len(glue), Kind.GLUE, np.uint8), np.zeros(len(glue), np.float32))
        self.messages.extend(messages)

    def keep_private(self, told: Private) -> None:
        """What the environment declared, with or without kinds."""
        if isinstance(told, Mapping):
            self.private_kinds = {value: kind for kind, values in told.items() for value in values}
            self.private = tuple(self.private_kinds)
        else:
            self.private = tuple(told)

    def cut(self, limit: str) -> None:
        """A limit cut something."""
        self.cuts[limit] = self.cuts.get(limit, 0) + 1

    def rollout(self, broken: str) -> Rollout:
        """The record of what was played."""
        response = np.concatenate([np.zeros(0, np.int32), *self._ids])
        mask = np.zeros(len(response), np.bool_)
        for turn in self.turns:
            mask[turn.start : turn.stop] = True
        return Rollout(
            task=self.task.id,
            category=self.task.category,
            sibling=self.sibling,
            seed=self.seed,
            prompt=self.prompt,
            insert_at=self.insert_at,
            response=response,
            mask=mask,
            kinds=np.concatenate([np.zeros(0, np.uint8), *self._kinds]),
            sampled_logp=np.concatenate([np.zeros(0, np.float32), *self._logp]),
            turns=tuple(self.turns),
            messages=tuple(self.messages),
            tools=self.tools,
            ending="broken" if broken or self.ending is None else self.ending,
            verdict=None if broken else self.verdict,
            cuts=self.cuts,
            broken=broken,
            private=self.private,
            private_kinds=self.private_kinds,
        )

    def _append(self, ids: Ids, kinds: Kinds, logp: Floats) -> None:
        self._ids.append(ids)
        self._kinds.append(kinds)
        self._logp.append(logp)
        self.length += len(ids)
