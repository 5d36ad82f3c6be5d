"""Two things that must never happen to a policy gradient, watched from outside: a teacher in it, or a foreign token."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sgcd.chat import Chat
from sgcd.learn.head import backbone_of
from sgcd.records import Kind, Rollout


class Watch:
    """Sees every row that a model reads while gradients are recorded."""

    def __init__(self, model: Any) -> None:
        self._rows: Counter[bytes] = Counter()
        self._hook = backbone_of(model).register_forward_pre_hook(self._read, with_kwargs=True)

    def _read(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            return
        ids = named.get("input_ids", given[0] if given else None)
        rows = [None] if ids is None else ids.cpu().numpy()  # embeddings could be of anything
        self._rows.update(_key(row) for row in rows)

    def others(self, rollouts: Sequence[Rollout]) -> int:
        """How many rows since the last time were not those of the rollouts that were learnt from, each once."""
        expected = Counter(_key(np.concatenate([rollout.prompt, rollout.response])) for rollout in rollouts)
        found = (self._rows - expected).total()
        self._rows.clear()
        return found


def _key(row: Any) -> bytes:
    """A row whatever its padding, which is zeros on the right."""
    return b"?" if row is None else np.trim_zeros(np.asarray(row, np.int64), "b").tobytes()


def foreign(rollout: Rollout, chat: Chat) -> int:
    """How many tokens the mask covers that the policy did not write.

    Mask, turns and kinds were recorded together and would err together, so each turn is also held against the text that
    was kept of it: a template that shifts moves the one and not the other.
    """
    ours = np.zeros(len(rollout.response), np.bool_)
    said = [message["content"] for message in rollout.messages if message["role"] == "assistant"]
    said = said[max(0, len(said) - len(rollout.turns)) :]
    for turn, text in zip(rollout.turns, said, strict=False):
        ids = rollout.response[turn.start : turn.stop]
        if text == chat.said_text(ids[:-1] if chat.ended(ids) else ids):
            ours[turn.start : turn.stop] = True
    return int((rollout.mask & ~(ours & (rollout.kinds != Kind.GLUE))).sum())
