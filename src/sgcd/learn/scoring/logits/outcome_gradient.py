"""The gradient of a loss over K ids, the observed id and the tail, with respect to the logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.learn.scoring.logits.block import LogitsInputs

_MIN_TAIL_PROB = 1e-30
"""A smaller tail counts as this much in its gradient, so that g / P_tail stays a float32 number."""


@dataclass(frozen=True, slots=True)
class OutcomeLogprobs:
    """The outcomes of each token: log p at K ids, of the observed id, and of the tail outside all these."""

    ids: Tensor
    """[tokens, K]: different from each other; the observed id may be among them."""
    at_ids: Tensor
    """[tokens, K]."""
    observed: Tensor
    tail: Tensor


@dataclass(frozen=True, slots=True)
class OutcomeGradient:
    """dL/dz of every logit z, in a few numbers per token.

    With the support S of the ids and the observed id, and the sum G of the gradients g of all outcomes,
    dL/dz_v = g_v - G p_v inside S, and (g_tail / P_tail - G) p_v outside.
    """

    outside: Tensor
    """[tokens]: G - g_tail / P_tail, which takes the place of g in the gradient of a single log p."""
    support: Tensor
    """[tokens, K + 1]: S; the observed id is last, and may be among the K as well."""
    logprobs: Tensor
    """[tokens, K + 1]: log p inside S."""
    inside: Tensor
    """[tokens, K + 1]: dL/dz inside S."""

    def write_inside(self, inputs: LogitsInputs, raw_gradient: Tensor, token_slice: slice, *, lse: Tensor) -> None:
        """Overwrite the gradient of the head's product with some tokens, at their support."""
        head, temperature = inputs.head, inputs.temperature
        inside = self.inside[token_slice] * (head.scale / temperature)
        if head.cap is not None:
            logits = self.logprobs[token_slice] + lse[token_slice, None]
            inside *= 1 - (logits * (temperature / head.cap)) ** 2
        raw_gradient.scatter_(1, self.support[token_slice], inside.to(raw_gradient.dtype))


def build_outcome_gradient(
    logprobs: OutcomeLogprobs, observed_ids: Tensor, gradients: tuple[Tensor, ...]
) -> OutcomeGradient:
    """From the gradients g of log p(observed), at the ids and of the tail; an outcome without mass (-inf) has none."""
    g_observed, g_ids, g_tail = gradients
    g_ids = g_ids.masked_fill(logprobs.at_ids == -torch.inf, 0)
    g_tail = g_tail.masked_fill(logprobs.tail == -torch.inf, 0)
    total = g_ids.sum(-1) + g_observed + g_tail
    is_observed = logprobs.ids == observed_ids[:, None]  # the observed id among the K adds both gradients, in each slot
    at_ids = g_ids + g_observed[:, None].masked_fill(~is_observed, 0)
    at_observed = g_observed + g_ids.masked_fill(~is_observed, 0).sum(-1)
    support_logprobs = torch.cat([logprobs.at_ids, logprobs.observed[:, None]], dim=1)
    return OutcomeGradient(
        outside=total - g_tail / logprobs.tail.exp().clamp_min(_MIN_TAIL_PROB),
        support=torch.cat([logprobs.ids, observed_ids[:, None]], dim=1),
        logprobs=support_logprobs,
        inside=torch.cat([at_ids, at_observed[:, None]], dim=1) - total[:, None] * support_logprobs.exp(),
    )
