"""The sampler's engine: feeds new ids into the slot cache and samples one token for each active sequence."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from sgcd.errors import PolicyError
from sgcd.learn.policy.attention_masks import MASKED_ATTENTION, AttentionMasks
from sgcd.learn.sampling.kv_cache import SlotCache
from sgcd.learn.sampling.sample_tokens import sample_tokens
from sgcd.learn.sampling.sequence_state import SequenceState
from sgcd.learn.sampling.shared_prompts import MIN_SHARED_TOKENS, count_common_tokens, find_donor, find_leaders

_IndexArray = NDArray[np.int64]

_MAX_PREFILL_TOKENS = 16384
"""Tokens of one prefill batch, padding included."""


class Engine:
    """Rows 0 to n-1 of the cache belong to the n active sequences, so that decoding reads the cache without copying."""

    def __init__(
        self,
        model: PreTrainedModel,
        num_slots: int,
        end_ids: Collection[int],
        *,
        top_p: float,
        lookahead: int = 0,
    ) -> None:
        self._model = model
        self._masks = AttentionMasks(model)
        self._end_ids = end_ids
        self._top_p = top_p
        self._lookahead = lookahead
        if lookahead and self._masks.is_stateful:
            raise PolicyError(
                f"sampler.lookahead: the linear attention of {model.config.model_type} cannot take a wrong guess back; "
                f"expected 0, got {lookahead}"
            )
        self._num_layers: int = model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(num_slots)
        self._sequences: list[SequenceState | None] = [None] * num_slots
        self._num_active = 0

    @property
    def num_active(self) -> int:
        """The number of sequences in the middle of a turn."""
        return self._num_active

    def sample_turn(self, sequences: Sequence[SequenceState]) -> None:
        """Sample a whole turn of all `sequences`; shapes and order depend on these and their sampled ids alone."""
        self.step(sequences, ())
        while self._num_active:
            self.step((), ())

    def step(self, joining: Sequence[SequenceState], leaving: Sequence[SequenceState]) -> list[SequenceState]:
        """Remove `leaving`, feed `joining`, sample a token for each active sequence; return the finished ones."""
        with self._sampling_mode():
            if leaving:
                self._compact(set(self._active_sequences()).difference(leaving))
            running = self._active_sequences()
            finished = self._sample_ahead(running) if running else []
            if joining:
                finished += self._sample_next_tokens(joining, self._prefill(joining))
            if joining or finished:
                self._compact(set(running).union(joining).difference(finished))
        return finished

    def clear(self) -> None:
        """Remove all sequences; their cached tokens are no longer valid."""
        self._sequences = [None] * self._cache.num_slots
        self._num_active = 0

    @contextmanager
    def _sampling_mode(self) -> Iterator[None]:
        was_training = self._model.training
        if was_training:  # `eval` and `train` visit every module, so they are called only if needed
            self._model.eval()
        attn_implementation = str(self._model.config._attn_implementation)
        if attn_implementation not in MASKED_ATTENTION:
            self._model.set_attn_implementation("sdpa")
        try:
            with torch.inference_mode():
                yield
        finally:
            if was_training:
                self._model.train()
            if attn_implementation not in MASKED_ATTENTION:
                self._model.set_attn_implementation(attn_implementation)

    def _active_sequences(self) -> list[SequenceState]:
        return [sequence for sequence in self._sequences[: self._num_active] if sequence]

    def _sample_next_tokens(self, sequences: Sequence[SequenceState], logits: Tensor) -> list[SequenceState]:
        """One token for each sequence."""
        uniforms = [sequence.uniforms.next() for sequence in sequences]
        token_ids, logprobs = sample_tokens(
            logits, uniforms, [sequence.temperature for sequence in sequences], top_p=self._top_p
        )
        columns = zip(sequences, token_ids, logprobs, strict=True)
        return [sequence for sequence, token_id, logprob in columns if self._append(sequence, token_id, logprob)]

    def _append(self, sequence: SequenceState, token_id: int, logprob: float) -> bool:
        """Whether this token ends the turn."""
        sequence.sampled_ids.append(token_id)
        sequence.logprobs.append(logprob)
        return token_id in self._end_ids or not sequence.num_left

    def _sample_ahead(self, sequences: Sequence[SequenceState]) -> list[SequenceState]:
        """Feed the last token and the guesses behind it; sample at each; keep tokens up to the first wrong guess.

        A token is right where everything before it is, and it has the uniform of its place. So what is kept is what one
        token at a time would sample. What is sampled behind it are the next guesses, each from better ones.
        """
        width = 1 + min(self._lookahead, min(sequence.num_left for sequence in sequences) - 1)
        for sequence in sequences:
            guesses = sequence.draft_ids[: width - 1]
            sequence.draft_ids = guesses + sequence.sampled_ids[-1:] * (width - 1 - len(guesses))
        token_ids, logprobs = sample_tokens(
            self._decode(sequences, width).flatten(0, 1),
            [uniform for sequence in sequences for uniform in sequence.uniforms.peek(width)],
            [sequence.temperature for sequence in sequences for _ in range(width)],
            top_p=self._top_p,
        )
        finished: list[SequenceState] = []
        for index, sequence in enumerate(sequences):
            row = slice(index * width, (index + 1) * width)
            sampled, guesses = token_ids[row], sequence.draft_ids
            num_kept = next((place + 1 for place, guess in enumerate(guesses) if guess != sampled[place]), width)
            for token_id, logprob in zip(sampled[:num_kept], logprobs[row], strict=False):
                sequence.num_cached += 1
                sequence.uniforms.next()
                if self._append(sequence, token_id, logprob):
                    finished.append(sequence)
                    break
            sequence.draft_ids = sampled[num_kept:]
        return finished

    def _compact(self, active_sequences: set[SequenceState]) -> None:
        """Move the active sequences to the first rows."""
        num_active = len(active_sequences)
        target_rows = [row for row in range(num_active) if self._sequences[row] not in active_sequences]
        source_rows = [
            row for row in range(num_active, self._cache.num_slots) if self._sequences[row] in active_sequences
        ]
        if target_rows:
            moved = [sequence for row in target_rows + source_rows if (sequence := self._sequences[row])]
            self._cache.swap_rows(target_rows, source_rows, max(sequence.num_cached for sequence in moved))
            for a, b in zip(target_rows, source_rows, strict=True):
                self._sequences[a], self._sequences[b] = self._sequences[b], self._sequences[a]
            for row in target_rows + source_rows:
                if sequence := self._sequences[row]:
                    sequence.row = row
        self._num_active = num_active

    def _decode(self, sequences: Sequence[SequenceState], width: int) -> Tensor:
        """[sequences, width, vocabulary]: the logits after the last token of each, and after each guess behind it."""
        max_length = max(sequence.num_cached for sequence in sequences) + width
        self._cache.reserve(max_length)
        positions = np.array([sequence.num_cached for sequence in sequences])[:, None] + np.arange(width)
        token_ids = np.array([[sequence.sampled_ids[-1], *sequence.draft_ids] for sequence in sequences])
        cells = positions + np.arange(len(sequences))[:, None] * self._cache.capacity
        return self._forward(len(sequences), token_ids, positions, cells=cells, max_length=max_length, num_logits=width)

    def _prefill(self, sequences: Sequence[SequenceState]) -> Tensor:
        """Feed the pending ids; return the logits after the last of each sequence. What new prompts share is computed
        once: whole prompts, as siblings have, and long beginnings."""
        self._assign_rows(sequences)
        leader_of = find_leaders(sequences)
        leaders = [sequence for sequence in sequences if leader_of[sequence] is sequence]
        self._share_beginnings([sequence for sequence in leaders if not sequence.num_cached], sequences)
        logits: dict[SequenceState, Tensor] = {}
        for batch in self._split_prefill(leaders):
            logits |= zip(batch, self._prefill_batch(batch), strict=True)
        followers = [sequence for sequence in sequences if leader_of[sequence] is not sequence]
        if followers:
            for sequence in followers:
                sequence.num_cached = leader_of[sequence].num_cached
            rows = [leader_of[p].row for p in followers]
            self._cache.copy_rows(rows, [p.row for p in followers], max(p.num_cached for p in followers))
        return torch.stack([logits[leader_of[sequence]] for sequence in sequences])

    def _share_beginnings(self, new: Sequence[SequenceState], joining: Sequence[SequenceState]) -> None:
        """Copy beginnings of new prompts from rows that hold them; feed once what the other prompts have in common."""
        others = [] if self._masks.is_stateful else [s for s in self._sequences if s and s not in joining]
        left: list[SequenceState] = []
        for sequence in new:
            if donor := find_donor(sequence, others):
                self._continue_from(donor[0], [sequence], donor[1])
            else:
                left.append(sequence)
        num_common = count_common_tokens([sequence.pending_ids for sequence in left]) if len(left) > 1 else 0
        if num_common >= MIN_SHARED_TOKENS:
            first, rest = left[0], left[0].pending_ids[num_common:]
            first.pending_ids = first.pending_ids[:num_common]
            self._prefill_batch([first])
            first.pending_ids = rest
            self._continue_from(first, left[1:], num_common)

    def _continue_from(self, donor: SequenceState, sequences: Sequence[SequenceState], num_tokens: int) -> None:
        """Let new sequences begin with the first tokens of the donor's row."""
        rows = [sequence.row for sequence in sequences]
        self._cache.copy_rows([donor.row] * len(rows), rows, num_tokens)
        for sequence in sequences:
            sequence.num_cached, sequence.pending_ids = num_tokens, sequence.pending_ids[num_tokens:]

    def _split_prefill(self, sequences: Sequence[SequenceState]) -> list[list[SequenceState]]:
        """Batches of similar length. With stateful layers, continued sequences are batched with equal lengths only."""

        def batch_kind(sequence: SequenceState) -> int:
            return len(sequence.pending_ids) if self._masks.is_stateful and sequence.num_cached else 0

        batches: list[list[SequenceState]] = []
        for sequence in sorted(sequences, key=lambda candidate: (batch_kind(candidate), len(candidate.pending_ids))):
            last_batch = batches[-1] if batches else []
            if (
                last_batch
                and batch_kind(last_batch[0]) == batch_kind(sequence)
                and (len(last_batch) + 1) * len(sequence.pending_ids) <= _MAX_PREFILL_TOKENS
            ):
                last_batch.append(sequence)
            else:
                batches.append([sequence])
        return batches

    def _assign_rows(self, sequences: Sequence[SequenceState]) -> None:
        """Give a row to every sequence without one; rows of closed sequences are free."""
        for row in range(self._num_active, self._cache.num_slots):
            if (occupant := self._sequences[row]) and occupant.closed:
                self._sequences[row] = None
        free_rows = [row for row, occupant in enumerate(self._sequences) if occupant is None]
        arriving = [sequence for sequence in sequences if sequence.row < 0]
        for row, sequence in zip(free_rows[: len(arriving)], arriving, strict=True):
            self._sequences[row], sequence.row = sequence, row

    def _prefill_batch(self, sequences: Sequence[SequenceState]) -> Tensor:
        """Padding is on the left: the last id of every row is in the last column, the only one that needs the head."""
        width = max(len(sequence.pending_ids) for sequence in sequences)
        is_fresh = not any(sequence.num_cached for sequence in sequences)
        max_length = max(sequence.num_cached + len(sequence.pending_ids) for sequence in sequences)
        self._cache.reserve(max_length)
        token_ids = np.zeros((len(sequences), width), np.int64)
        positions = np.zeros_like(token_ids)
        cells = np.full_like(token_ids, self._cache.padding_cell)
        for i, sequence in enumerate(sequences):
            start = width - len(sequence.pending_ids)
            token_ids[i, start:] = sequence.pending_ids
            positions[i, start:] = np.arange(sequence.num_cached, sequence.num_cached + len(sequence.pending_ids))
            cells[i, start:] = sequence.row * self._cache.capacity + positions[i, start:]
            sequence.num_cached += len(sequence.pending_ids)
        rows = torch.tensor([sequence.row for sequence in sequences], device=self._model.device)
        logits = self._forward(rows, token_ids, positions, cells=cells, max_length=max_length, is_fresh=is_fresh)
        return logits[:, -1]

    def _forward(
        self,
        rows: int | Tensor,
        token_ids: _IndexArray,
        positions: _IndexArray,
        *,
        cells: _IndexArray,
        max_length: int,
        is_fresh: bool = False,
        num_logits: int = 1,
    ) -> Tensor:
        """The logits of the last `num_logits` columns."""
        device = self._model.device
        position_ids = torch.from_numpy(positions).to(device)
        self._cache.set_target(rows, torch.from_numpy(cells.ravel()).to(device), max_length, is_fresh=is_fresh)
        token_mask = (
            torch.from_numpy(cells != self._cache.padding_cell).to(device)
            if (cells == self._cache.padding_cell).any()
            else None
        )
        logits = self._model(
            input_ids=torch.from_numpy(token_ids).to(device),
            attention_mask=self._masks.build(position_ids, token_mask, max_length),
            position_ids=position_ids,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=num_logits,
        ).logits
        if self._cache.num_layer_updates != self._num_layers:
            raise PolicyError(
                f"policy: {self._model.config.model_type} cached {self._cache.num_layer_updates} of "
                f"{self._num_layers} layers; only models that keep one memory in each layer can be sampled"
            )
        return logits
