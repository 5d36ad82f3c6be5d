"""What the student and its teachers say of each token of a response, and how sure the student was where it chose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgcd.chat import Chat
from sgcd.contrast.insert import build_teacher_input_ids, encode_reference
from sgcd.credit.settings import SgcdSettings
from sgcd.learn.policy.head import get_head
from sgcd.learn.scoring.batch import unpack_policy_tokens
from sgcd.learn.scoring.logits.stats import topk_stats
from sgcd.learn.scoring.logprobs import forward_micro_batches
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.scoring.teacher import score_teacher
from sgcd.records import Features, Floats, Rollout

LAB_MICRO_BATCH_TOKENS = 16384
"""Padded tokens in one forward pass."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """One rollout under all contexts."""

    top_probs: Floats
    """The student's largest probability; zero where the policy did not write."""
    logprobs: Floats
    """The student's log-probability of what was written."""
    features: tuple[Features, ...]
    """One for each of the texts that the teacher was shown."""


def score_tokens(
    model: Any, chat: Chat, rollouts: Sequence[Rollout], texts: Sequence[Sequence[str]], settings: SgcdSettings
) -> list[TokenScores]:
    """Score each rollout under each list of `texts` (one text for each rollout); no gradient."""
    teacher_topk = []
    for arm_texts in texts:
        teacher_input_ids = [
            build_teacher_input_ids(rollout, encode_reference(chat, text))
            for rollout, text in zip(rollouts, arm_texts, strict=True)
        ]
        teacher_topk.append(score_teacher(model, rollouts, teacher_input_ids, 1.0, LAB_MICRO_BATCH_TOKENS, settings.k))
    student_scores = score_student_no_grad(
        model, rollouts, teacher_topk, 1.0, LAB_MICRO_BATCH_TOKENS, settings.divergence
    )
    features = [
        tuple(item for item in arm_features if item) for arm_features in zip(*student_scores.features, strict=True)
    ]
    return [
        TokenScores(*item)
        for item in zip(score_top_probs(model, rollouts), student_scores.logprobs, features, strict=True)
    ]


def score_top_probs(model: Any, rollouts: Sequence[Rollout]) -> list[Floats]:
    """The largest probability of the student's distribution at each token that it wrote."""
    import torch

    probs_by_index: dict[int, Floats] = {}
    with torch.no_grad():
        for indices, (hidden_states, observed) in forward_micro_batches(model, rollouts, LAB_MICRO_BATCH_TOKENS):
            largest = topk_stats(hidden_states, get_head(model), observed, k=1).logprobs[:, 0].exp()
            probs_by_index |= zip(
                indices, unpack_policy_tokens(largest, [rollouts[index] for index in indices]), strict=True
            )
    return [probs_by_index[index] for index in range(len(rollouts))]
