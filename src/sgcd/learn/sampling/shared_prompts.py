"""Which new prompts begin alike, so that the sampler computes their beginning once."""

from collections.abc import Iterable, Sequence

from sgcd.learn.sampling.sequence_state import SequenceState

MIN_SHARED_TOKENS = 256
"""Fewer are computed again: another forward pass costs more than they do."""


def find_leaders(sequences: Sequence[SequenceState]) -> dict[SequenceState, SequenceState]:
    """For each sequence the first one with the same new prompt; for a continued one, itself."""
    leader_of_prompt: dict[tuple[int, ...], SequenceState] = {}
    return {
        sequence: sequence
        if sequence.num_cached
        else leader_of_prompt.setdefault(tuple(sequence.pending_ids), sequence)
        for sequence in sequences
    }


def count_common_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens with which all prompts begin. One token of each is left, as its logits are needed."""
    shortest = min(prompts, key=len)
    for index, token in enumerate(shortest[:-1]):
        if any(prompt[index] != token for prompt in prompts):
            return index
    return max(0, len(shortest) - 1)


def find_donor(sequence: SequenceState, candidates: Iterable[SequenceState]) -> tuple[SequenceState, int] | None:
    """The cached sequence that begins most like a new prompt, and with how many tokens; None where all begin apart."""
    best: tuple[SequenceState, int] | None = None
    for candidate in candidates:
        num_common = min(count_common_tokens([sequence.pending_ids, [*candidate.prompt_ids, -1]]), candidate.num_cached)
        if num_common >= MIN_SHARED_TOKENS and (best is None or num_common > best[1]):
            best = candidate, num_common
    return best
