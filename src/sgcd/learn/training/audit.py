"""Checks that the gradient saw only the rollouts' rows and the policy's tokens."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sgcd.chat import Chat
from sgcd.learn.policy.head import get_backbone
from sgcd.learn.scoring.prefix_tree import PrefixTree
from sgcd.records import Rollout, TokenKind


class ContextAudit:
    """Sees every row that a model reads while gradients are recorded."""

    def __init__(self, model: Any) -> None:
        self._row_counts: Counter[bytes] = Counter()
        self._hook = get_backbone(model).register_forward_pre_hook(self._record_rows, with_kwargs=True)

    def _record_rows(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            return
        ids = kwargs.get("input_ids", args[0] if args else None)
        rows: Any = [None] if ids is None else ids.cpu().numpy()  # embeddings could be of anything
        if tree_row := kwargs.get("prefix_tree"):
            rows = _read_tree(rows[0], tree_row.tree)
        self._row_counts.update(_row_key(row) for row in rows)

    def count_unexpected(self, rollouts: Sequence[Rollout], num_updates: int = 1) -> int:
        """How many rows since the last time were not those of the rollouts that were learnt from, each once in each
        update."""
        expected = Counter(
            _row_key(np.concatenate([rollout.prompt, rollout.response]))
            for rollout in rollouts
            for _ in range(num_updates)
        )
        num_unexpected = (self._row_counts - expected).total()
        self._row_counts.clear()
        return num_unexpected


def _read_tree(token_ids: Any, tree: PrefixTree) -> list[Any]:
    """What the last token of each sequence sees; an unknown row for each token that none of them sees."""
    paths = [tree.path(int(places[-1])) for places in tree.places]
    num_unseen = len(token_ids) - len(np.unique(np.concatenate(paths)))
    return [*(token_ids[path] for path in paths), *[None] * num_unseen]


def _row_key(row: Any) -> bytes:
    """A row whatever its padding, which is zeros on the right."""
    return b"?" if row is None else np.trim_zeros(np.asarray(row, np.int64), "b").tobytes()


def count_foreign_tokens(rollout: Rollout, chat: Chat) -> int:
    """How many tokens the mask covers that the policy did not write.

    Mask, turns and kinds were recorded together and would err together, so each turn is also held against the text that
    was kept of it: a template that shifts moves the one and not the other.
    """
    is_policy_token = np.zeros(len(rollout.response), np.bool_)
    assistant_texts = [message["content"] for message in rollout.messages if message["role"] == "assistant"]
    assistant_texts = assistant_texts[max(0, len(assistant_texts) - len(rollout.turns)) :]
    for turn, text in zip(rollout.turns, assistant_texts, strict=False):
        ids = rollout.response[turn.start : turn.stop]
        if text == chat.turn_text(ids[:-1] if chat.has_end_token(ids) else ids):
            is_policy_token[turn.start : turn.stop] = True
    return int((rollout.response_mask & ~(is_policy_token & (rollout.token_kinds != TokenKind.GLUE))).sum())
