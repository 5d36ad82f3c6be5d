"""What is compared: our statistics, the product with the head alone, and the naive way with all logits in memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import divergence_of, outcomes, top_ids
from sgcd.learn.head import Head
from sgcd.learn.rows import plan, product_like
from sgcd.learn.stats import stats_at, topk_stats
from sgcd.learn.teacher import outcomes_at

K = 20


@dataclass(frozen=True, slots=True)
class Inputs:
    """Hidden states of both contexts, a head, and the ids that were written."""

    student: Tensor
    teacher: Tensor
    head: Head
    observed: Tensor


def inputs(tokens: int, width: int, size: int, dtype: torch.dtype, device: str = "cpu") -> Inputs:
    """As a language model's: logits spread over 3, one of them well above, and a teacher that differs a little."""
    generator = torch.Generator(device).manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    weight = torch.empty(size, width, dtype=dtype, device=device)
    for start in range(0, size, 8192):  # a float32 copy of the whole would be the process's peak
        part = weight[start : start + 8192]
        part.copy_(normal(*part.shape) * (3 / width**0.5))
    liked = torch.randint(0, size, (tokens,), generator=generator, device=device)
    student = normal(tokens, width) + 1.2 * weight[liked].float()
    teacher = student + 0.1 * normal(tokens, width)
    observed = torch.where(torch.arange(tokens, device=device) % 4 > 0, liked, liked.roll(1))
    return Inputs(student.to(dtype), teacher.to(dtype), Head(weight), observed)


@torch.no_grad()
def product(given: Inputs, room: int) -> None:
    """The floor: nothing but the product with the head, chunk by chunk into one buffer."""
    rows, _, _ = plan(given.head, given.teacher, room)
    buffer = product_like(given.head, given.teacher, min(rows, len(given.teacher)))
    for start in range(0, len(given.teacher), rows):
        some = given.teacher[start : start + rows]
        given.head.raw(some, buffer[: len(some)])


def naive(given: Inputs, rows: int) -> list[Tensor]:
    """Two log-softmaxes over everything and a top-K, `rows` at a time; on a CPU that is all of them."""
    kept: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(given.teacher), rows):
            here = slice(start, start + rows)
            q = torch.nn.functional.linear(given.teacher[here], given.head.weight).float().log_softmax(-1)
            p = torch.nn.functional.linear(given.student[here], given.head.weight).float().log_softmax(-1)
            top, ids = q.topk(K)
            own = given.observed[here, None]
            kept += [top, p.gather(1, ids), q.gather(1, own), p.gather(1, own)]
    return kept


def two_contexts(given: Inputs, room: int) -> None:
    """The student read by itself, as for a method that has to see a whole step first."""
    top = topk_stats(given.teacher, given.head, given.observed, K, 1.0, room)
    stats_at(given.student, given.head, given.observed, [top.ids], 1.0, room)


def divergences(given: Inputs) -> tuple[Tensor, Tensor]:
    """Ours, and the ids that it is taken on."""
    top = topk_stats(given.teacher, given.head, given.observed, K)
    said = stats_at(given.student, given.head, given.observed, [top.ids])
    ((logp, rest),) = said.at
    p = outcomes_at(top.ids, given.observed, logp, said.own, rest)
    q = outcomes_at(top.ids, given.observed, top.logp, top.own, top.rest)
    return divergence_of(p, q), top.ids


@torch.no_grad()
def in_full(given: Inputs, dtype: torch.dtype, rows: int = 32) -> tuple[Tensor, Tensor]:
    """The same from logits that are computed in `dtype`, over the whole vocabulary."""
    found: list[tuple[Tensor, Tensor]] = []
    weight = given.head.weight.to(dtype)
    for start in range(0, len(given.teacher), rows):
        here = slice(start, start + rows)
        z = [torch.nn.functional.linear(x[here].to(dtype), weight) for x in (given.student, given.teacher)]
        ids = top_ids(z[1], K)
        p, q = (outcomes(each, ids, given.observed[here]) for each in z)
        found.append((divergence_of(p, q), ids))
    return torch.cat([d for d, _ in found]), torch.cat([ids for _, ids in found])
