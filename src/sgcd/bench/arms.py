"""The arms of the scoring benchmark: sgcd, the product with the head alone, and all logits in memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import divergence_of, outcomes, top_ids
from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.block import LogitsInputs
from sgcd.learn.scoring.logits.chunks import chunk_sizes, iter_products
from sgcd.learn.scoring.logits.stats import stats_at, topk_stats
from sgcd.learn.scoring.teacher import topk_observed_tail

HEAD_TOP_K = 20


@dataclass(frozen=True, slots=True)
class HeadInputs:
    """Hidden states of both contexts, a head, and the observed ids."""

    student: Tensor
    teacher: Tensor
    head: Head
    observed: Tensor


def build_head_inputs(
    num_tokens: int, hidden_size: int, vocab_size: int, *, dtype: torch.dtype, device: str = "cpu"
) -> HeadInputs:
    """Random inputs like those of a language model: logits with deviation 3 and one peak, and a similar teacher."""
    generator = torch.Generator(device).manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    weight = torch.empty(vocab_size, hidden_size, dtype=dtype, device=device)
    for start in range(0, vocab_size, 8192):  # a float32 copy of all would be the peak of memory
        part = weight[start : start + 8192]
        part.copy_(normal(*part.shape) * (3 / hidden_size**0.5))
    likely_ids = torch.randint(0, vocab_size, (num_tokens,), generator=generator, device=device)
    student = normal(num_tokens, hidden_size) + 1.2 * weight[likely_ids].float()
    teacher = student + 0.1 * normal(num_tokens, hidden_size)
    observed = torch.where(torch.arange(num_tokens, device=device) % 4 > 0, likely_ids, likely_ids.roll(1))
    return HeadInputs(student.to(dtype), teacher.to(dtype), Head(weight), observed)


@torch.no_grad()
def run_product(head_inputs: HeadInputs, logits_bytes: int) -> None:
    """The lower bound: only the product with the head, chunk by chunk into one buffer."""
    inputs = LogitsInputs(head_inputs.teacher, head_inputs.head, head_inputs.observed)
    for _ in iter_products(inputs, chunk_sizes(inputs.head, inputs.hidden, logits_bytes)):
        pass


def run_naive(head_inputs: HeadInputs, chunk_rows: int) -> list[Tensor]:
    """Two log-softmaxes over the whole vocabulary and a top-K, `chunk_rows` tokens at a time."""
    results: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(head_inputs.teacher), chunk_rows):
            rows_slice = slice(start, start + chunk_rows)
            q = (
                torch.nn.functional.linear(head_inputs.teacher[rows_slice], head_inputs.head.weight)
                .float()
                .log_softmax(-1)
            )
            p = (
                torch.nn.functional.linear(head_inputs.student[rows_slice], head_inputs.head.weight)
                .float()
                .log_softmax(-1)
            )
            top_logprobs, ids = q.topk(HEAD_TOP_K)
            observed_ids = head_inputs.observed[rows_slice, None]
            results += [top_logprobs, p.gather(1, ids), q.gather(1, observed_ids), p.gather(1, observed_ids)]
    return results


def score_two_contexts(head_inputs: HeadInputs, logits_bytes: int) -> None:
    """A pass for the teacher and one for the student, as for a method that needs the whole step first."""
    top = topk_stats(
        head_inputs.teacher, head_inputs.head, head_inputs.observed, k=HEAD_TOP_K, logits_bytes=logits_bytes
    )
    stats_at(head_inputs.student, head_inputs.head, head_inputs.observed, ids=[top.ids], logits_bytes=logits_bytes)


def score_divergence(head_inputs: HeadInputs) -> tuple[Tensor, Tensor]:
    """The divergence by sgcd, and the ids of its outcomes."""
    top = topk_stats(head_inputs.teacher, head_inputs.head, head_inputs.observed, k=HEAD_TOP_K)
    student_stats = stats_at(head_inputs.student, head_inputs.head, head_inputs.observed, ids=[top.ids])
    ((logprobs, tail_logprob),) = student_stats.logprobs_at
    p = topk_observed_tail(top.ids, head_inputs.observed, logprobs, student_stats.observed_logprob, tail_logprob)
    q = topk_observed_tail(top.ids, head_inputs.observed, top.logprobs, top.observed_logprob, top.tail_logprob)
    return divergence_of(p, q), top.ids


@torch.no_grad()
def score_divergence_in_full(
    head_inputs: HeadInputs, dtype: torch.dtype, chunk_rows: int = 32
) -> tuple[Tensor, Tensor]:
    """The same from the logits of the whole vocabulary, computed in `dtype`."""
    parts: list[tuple[Tensor, Tensor]] = []
    weight = head_inputs.head.weight.to(dtype)
    for start in range(0, len(head_inputs.teacher), chunk_rows):
        rows_slice = slice(start, start + chunk_rows)
        z = [
            torch.nn.functional.linear(x[rows_slice].to(dtype), weight)
            for x in (head_inputs.student, head_inputs.teacher)
        ]
        ids = top_ids(z[1], HEAD_TOP_K)
        p, q = (outcomes(logits, ids, head_inputs.observed[rows_slice]) for logits in z)
        parts.append((divergence_of(p, q), ids))
    return torch.cat([d for d, _ in parts]), torch.cat([ids for _, ids in parts])
