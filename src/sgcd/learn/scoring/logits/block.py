"""What the statistics read: tokens with the head that turns them into logits, and a block of such logits."""

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from sgcd.learn.policy.head import Head


@dataclass(frozen=True, slots=True)
class LogitsInputs:
    """Tokens whose logits are read: one hidden state and one observed id per token, the head and the temperature."""

    hidden: Tensor
    """[tokens, hidden]."""
    head: Head
    observed: Tensor
    """[tokens]."""
    temperature: float = 1.0

    def rows(self, token_slice: slice) -> "LogitsInputs":
        """Some of the tokens."""
        return replace(self, hidden=self.hidden[token_slice], observed=self.observed[token_slice])


class LogitsBlock(Protocol):
    """The logits of consecutive tokens and their statistics. A block is valid until the next one is read."""

    @property
    def token_slice(self) -> slice:
        """The tokens of this block."""
        ...

    @property
    def observed_logprob(self) -> Tensor:
        """log p of the observed id."""
        ...

    @property
    def entropy(self) -> Tensor:
        """Over the whole vocabulary."""
        ...

    @property
    def logsumexp(self) -> Tensor: ...

    def top_k(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the K largest logits, ascending, ties to the lower id; and `logprobs_at` of these ids."""
        ...

    def logprobs_at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log p at `ids` [tokens, K], and of the tail: all ids but these and the observed one, summed directly."""
        ...
