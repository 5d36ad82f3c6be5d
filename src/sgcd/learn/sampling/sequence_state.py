"""One rollout in the sampler's engine."""

from dataclasses import dataclass, field

from sgcd.learn.sampling.sample_tokens import UniformStream
from sgcd.records import TokenIds


@dataclass(eq=False, slots=True)
class SequenceState:
    """One rollout in the engine: its row, the number of its cached tokens, and the turn that is being sampled."""

    index: int
    temperature: float
    uniforms: UniformStream
    row: int = -1
    num_cached: int = 0
    pending_ids: list[int] = field(default_factory=list)
    """Ids to feed before the first token of the turn. The last sampled id of a turn is fed with the next turn."""
    prompt_ids: list[int] = field(default_factory=list)
    """Ids of the first turn, with which its row begins."""
    max_tokens: int = 0
    sampled_ids: list[int] = field(default_factory=list)
    draft_ids: list[int] = field(default_factory=list)
    """Guesses of what is sampled next, where the engine looks ahead."""
    logprobs: list[float] = field(default_factory=list)
    closed: bool = False

    def start_turn(self, new_ids: TokenIds, max_tokens: int) -> None:
        self.pending_ids = self.sampled_ids[-1:] + new_ids.tolist()
        self.prompt_ids = self.prompt_ids or self.pending_ids
        self.sampled_ids, self.draft_ids, self.logprobs, self.max_tokens = [], [], [], max_tokens

    @property
    def num_left(self) -> int:
        """Tokens that the turn may still have."""
        return self.max_tokens - len(self.sampled_ids)
