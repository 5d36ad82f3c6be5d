"""Gradients of the policy's log-probabilities in the long desk, apart for decisions, thinking and all other tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.chat import Chat
from sgcd.lab.long_desk.world import DECISIONS, allows, desk_requests
from sgcd.learn.scoring.forward import forward_hidden_states, pack_policy_tokens, pad_batch
from sgcd.records import Flags, Floats, Group, Rollout, Task, TokenKind

Gradients = NDArray[np.float32]
"""One row for each group, rollout or decision; one column for each parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskRollout:
    """A rollout with the places at which it decides, and the policy's numbers there."""

    rollout: Rollout
    places: NDArray[np.int64]
    """Of each request's tool name in the response. A request without a call has none."""
    right_ids: NDArray[np.int64]
    """The id of the right tool at each place."""
    may_act: Flags
    """Whether the rule allows the request of each place."""
    prob_right: Floats
    """The policy's probability of the right tool at each place."""
    logprobs: Floats
    entropies: Floats
    """The policy's at each token of the response; zero where it did not write."""
    thinking_entropies: Floats
    """The policy's entropy at each word of thinking, numbers left out."""
    thinking_masses: Floats
    """Its mass there on the words that decide."""

    @property
    def is_right(self) -> Flags:
        return self.rollout.response[self.places] == self.right_ids

    @property
    def is_decision(self) -> Flags:
        mask = np.zeros(len(self.rollout.response), np.bool_)
        mask[self.places] = True
        return mask

    @property
    def is_thinking(self) -> Flags:
        return self.rollout.token_kinds == TokenKind.THINKING


def score_desk_group(model: Any, chat: Chat, task: Task, rollouts: Sequence[Rollout]) -> list[DeskRollout]:
    """The rollouts of one task with the policy's numbers, from one forward pass without a gradient."""
    import torch

    vocabulary = chat.tokenizer.get_vocab()
    decision_ids = np.array([vocabulary[word] for word in DECISIONS])
    call_id = vocabulary["<call>"]
    with torch.no_grad():
        packed = logprobs_of_all_words(model, rollouts)[0].numpy()
    scored: list[DeskRollout] = []
    parts = np.split(packed, np.cumsum([rollout.num_policy_tokens for rollout in rollouts])[:-1])
    for rollout, part in zip(rollouts, parts, strict=True):
        by_token = np.zeros((len(rollout.response), part.shape[1]), np.float32)
        by_token[rollout.response_mask] = part
        starts = [
            (request, np.flatnonzero(rollout.response[turn.start : turn.stop - 1] == call_id)[:1] + turn.start + 1)
            for request, turn in zip(desk_requests(task), rollout.turns, strict=False)
        ]
        decided = [(request, int(place[0])) for request, place in starts if len(place)]
        places = np.array([place for _, place in decided], np.int64)
        right_ids = np.array([vocabulary[request.right_tool] for request, _ in decided], np.int64)
        entropies = -(np.exp(by_token) * by_token).sum(axis=1) * rollout.response_mask
        words = np.flatnonzero((rollout.token_kinds == TokenKind.THINKING) & np.isin(rollout.response, decision_ids))
        scored.append(
            DeskRollout(
                rollout=rollout,
                places=places,
                right_ids=right_ids,
                may_act=np.array([allows(request) for request, _ in decided], np.bool_),
                prob_right=np.exp(by_token[places, right_ids]),
                logprobs=by_token[np.arange(len(by_token)), rollout.response] * rollout.response_mask,
                entropies=entropies.astype(np.float32),
                thinking_entropies=entropies[words].astype(np.float32),
                thinking_masses=np.exp(by_token[words][:, decision_ids]).sum(axis=1),
            )
        )
    return scored


def logprobs_of_all_words(model: Any, rollouts: Sequence[Rollout]) -> tuple[Any, Any]:
    """[policy tokens, vocabulary] with a gradient, and the ids that were written."""
    hidden_states, observed = forward_hidden_states(model, pad_batch(rollouts))
    return model.lm_head(hidden_states).log_softmax(-1), observed


def sum_gradients(model: Any, rollouts: Sequence[Rollout], coefficients: Sequence[Sequence[Floats]]) -> Gradients:
    """The gradient of sum_t c_t log p(y_t) over all the rollouts, one row for each set of coefficients."""
    logprobs, observed = logprobs_of_all_words(model, rollouts)
    written = logprobs.gather(-1, observed[:, None])[:, 0]
    totals = [(written * pack_policy_tokens(each, rollouts)).sum() for each in coefficients]
    return np.stack([_flat_gradient(model, total) for total in totals])


def decision_gradients(model: Any, one: DeskRollout) -> tuple[Gradients, Gradients]:
    """The gradient of log p of each decision, and of the product of the probabilities of all right tools."""
    logprobs, observed = logprobs_of_all_words(model, [one.rollout])
    packed_places = np.cumsum(one.rollout.response_mask)[one.places] - 1
    rows = [_flat_gradient(model, logprobs[place, observed[place]]) for place in packed_places]
    product = logprobs[packed_places, one.right_ids].sum().exp()
    return np.stack(rows), _flat_gradient(model, product)


def _flat_gradient(model: Any, value: Any) -> NDArray[np.float32]:
    import torch

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(value, parameters, retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients]).numpy()


def groups_with_scores(model: Any, chat: Chat, groups: Sequence[Group]) -> list[list[DeskRollout]]:
    return [score_desk_group(model, chat, group.task, group.rollouts) for group in groups]
