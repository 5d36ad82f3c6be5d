"""The kernel for CUDA, line by line where no CUDA is: against float64 in full, and against the way without it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.logits_cases import (
    DEVICE,
    assert_close,
    build_block,
    check_block,
    group_stats_by_torch,
    logits,
    logits_head,
)
from helpers.random_heads import HEADS, drawn, full, in_full, observed_of, outcomes, outcomes_of_top
from sgcd.credit.divergence import divergence_of
from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits import chunks as rows
from sgcd.learn.scoring.logits import cpu_block as block
from sgcd.learn.scoring.logits.block import LogitsInputs
from sgcd.learn.scoring.logits.logprob_gradient import logprobs_with_grad, write_logits_gradient
from sgcd.learn.scoring.logits.stats import LogitStats, TopKStats, stats_at, topk_stats

pytest.importorskip("triton", reason="triton is not installed: the kernel for CUDA was not tested at all")

from sgcd.learn.scoring.logits import triton_kernel as kernel

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy, where a row holds infinities


class Wide(Head):
    """Its product is float32 as on CUDA, whatever the weights are."""

    def project(self, hidden: Tensor, out: Tensor) -> None:
        torch.mm(hidden.float(), self.weight.float().t(), out=out)
        if self.bias is not None:
            out += self.bias


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "uses_kernel", lambda hidden: True)
    monkeypatch.setattr(rows, "product_dtype", lambda hidden: torch.float32)


def wide(size: int, count: int, dtype: torch.dtype = torch.float32, seed: int = 0, **how: Any) -> tuple[Tensor, Head]:
    hidden, head = drawn(size, count, seed=seed, dtype=dtype, **how)
    bias = None if head.bias is None else head.bias.to(DEVICE)
    return hidden.to(DEVICE), Wide(head.weight.to(DEVICE), bias, head.scale, head.cap)


@pytest.mark.parametrize("kind", ["plain", "ties", "peaked", "holes", "far"])
@pytest.mark.parametrize(("size", "count"), [(1, 2), (127, 1), (128, 3), (129, 2), (4096, 2), (5003, 3)])
def test_three_numbers_for_every_group(kind: str, size: int, count: int) -> None:
    raw, head = logits(size, count, size, kind), logits_head(size)
    before = raw.clone()
    found = kernel.compute_group_stats(raw, head, 1.0)
    assert_close(found, group_stats_by_torch(raw, head, 1.0), 2e-5)
    assert torch.equal(raw, before)
    observed = torch.full((count,), size // 2, device=DEVICE)
    check_block(build_block(raw, head, observed, 1.0, found), raw, 20, 2e-5)


@pytest.mark.parametrize("how", [{"scale": 0.5}, {"cap": 7.0}, {"scale": 1.5, "cap": 30.0}])
def test_scale_cap_and_temperature_are_applied(how: dict[str, float]) -> None:
    raw, head = logits(700, 3, 1), logits_head(700, **how)
    assert_close(kernel.compute_group_stats(raw, head, 0.7), group_stats_by_torch(raw, head, 0.7), 2e-5)


def test_a_row_without_numbers_spoils_no_other() -> None:
    raw, head = logits(600, 4, 4), logits_head(600)
    raw[1, 5], raw[2, 300], raw[3] = torch.nan, torch.inf, -torch.inf
    said = build_block(raw, head, torch.full((4,), 3, device=DEVICE), 1.0, kernel.compute_group_stats(raw, head, 1.0))
    ids, logp, rest = said.top_k(5)
    assert ((ids >= 0) & (ids < 600)).all()
    for told in (logp.sum(-1), rest, said.observed_logprob, said.entropy, said.logsumexp):
        assert not told[1:].isfinite().any()
        assert told[0].isfinite()


def test_rows_may_lie_beyond_what_32_bits_reach() -> None:
    """Three rows so far apart that their offsets do not fit; only what is written of the memory is there."""
    apart = 2**30 + 64
    raw = torch.empty(2 * apart + 300, device=DEVICE).as_strided((3, 300), (apart, 1))
    raw.copy_(logits(300, 3, 5))
    head, lse = logits_head(300), raw.logsumexp(-1)
    assert_close(kernel.compute_group_stats(raw, head, 1.0), group_stats_by_torch(raw, head, 1.0), 1e-5)
    expected = -raw.double().softmax(-1)
    expected[:, 9] += 1
    inputs = LogitsInputs(raw[:, :0], head, torch.full((3,), 9, device=DEVICE))
    kernel.write_logits_gradient_by_kernel(inputs, raw, lse=lse, g=torch.ones(3, device=DEVICE))
    assert_close(raw, expected, 1e-6)


@pytest.mark.parametrize("how", HEADS.values(), ids=HEADS.keys())
@pytest.mark.usefixtures("by_kernel")
def test_it_says_what_the_way_without_it_says(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head = wide(1500, 9, **how)
    observed = observed_of(1500, 9).to(DEVICE)

    def told() -> tuple[TopKStats, LogitStats]:
        top = topk_stats(hidden, head, observed, k=5, temperature=0.7)
        return top, stats_at(hidden, head, observed, ids=[top.ids], temperature=0.7)

    ours = told()
    monkeypatch.setattr(rows, "uses_kernel", lambda hidden: False)
    (top, said), (plain, beside) = ours, told()
    assert torch.equal(top.ids, plain.ids)
    for name in ("logprobs", "observed_logprob", "tail_logprob", "entropy", "logsumexp"):
        assert_close(getattr(top, name), getattr(plain, name).double(), 1e-5)
    assert_close(said.logprobs_at[0][1], beside.logprobs_at[0][1].double(), 1e-5)
    assert torch.equal(said.logprobs_at[0][0], top.logprobs) and torch.equal(
        said.logprobs_at[0][1], top.tail_logprob
    )  # to the last bit
    assert all(
        torch.equal(getattr(said, name), getattr(top, name)) for name in ("observed_logprob", "entropy", "logsumexp")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("by_kernel")
def test_divergences_are_those_of_float64(dtype: torch.dtype) -> None:
    teacher, head = wide(8_000, 24, dtype, seed=1)
    student = (teacher.double() + 0.3 * torch.randn(teacher.shape, dtype=torch.float64).to(DEVICE)).to(dtype)
    observed = observed_of(8_000, 24).to(DEVICE)
    top = topk_stats(teacher, head, observed, k=20)
    [(logp, rest)] = (said := stats_at(student, head, observed, ids=[top.ids])).logprobs_at
    d = divergence_of(
        outcomes(logp, said.observed_logprob, rest, top, observed), outcomes_of_top(top, observed)
    ).double()
    q, p = full(teacher, head, 1.0), full(student, head, 1.0)
    ids = q.topk(20).indices.sort(-1).values
    expected = divergence_of(in_full(p, ids, observed), in_full(q, ids, observed))
    assert (ids == top.ids).all(-1).double().mean() >= 0.99
    assert (d - expected).abs().max() <= 1e-5
    assert (d >= 0).all() and (d <= (p.exp() * (p - q)).sum(-1) + 1e-5).all()


@pytest.mark.usefixtures("by_kernel")
def test_a_budget_cuts_and_changes_nothing() -> None:
    hidden, head = wide(2000, 11)
    observed = observed_of(2000, 11).to(DEVICE)
    few, whole = (
        topk_stats(hidden, head, observed, k=6, temperature=1.0, logits_bytes=room) for room in (4 * 2000 * 4, 2**30)
    )
    assert rows.chunk_sizes(head, hidden, 4 * 2000 * 4).product_rows == 2
    assert torch.equal(few.ids, whole.ids)
    assert_close(few.tail_logprob, whole.tail_logprob.double(), 1e-5)
    nothing = torch.zeros(0, dtype=torch.long, device=DEVICE)
    assert topk_stats(hidden[:0], head, nothing, k=3).logprobs.shape == (0, 3)


@pytest.mark.parametrize("how", HEADS.values(), ids=HEADS.keys())
def test_the_gradient_is_that_of_the_way_without_it(how: dict[str, Any]) -> None:
    hidden, head = wide(4500, 5, **how)
    observed, g = observed_of(4500, 5).to(DEVICE), torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], device=DEVICE)
    raw = torch.empty(5, 4500, device=DEVICE)
    head.project(hidden, raw)
    lse = stats_at(hidden, head, observed, temperature=0.7).logsumexp
    ours = raw.clone()
    inputs = LogitsInputs(hidden, head, observed, 0.7)
    kernel.write_logits_gradient_by_kernel(inputs, ours, lse=lse, g=g)
    z = torch.empty_like(raw)
    block.exp_shifted(head.to_logits(raw.clone(), 0.7, z), lse * 1.4426950408889634, z)
    assert z.sum(-1).allclose(torch.ones(5, device=DEVICE), atol=1e-4)
    write_logits_gradient(inputs, raw, lse=lse, g=g, sizes=rows.ChunkSizes(2, 2, torch.float32, use_kernel=False))
    assert_close(ours, raw.double(), 1e-6)


@pytest.mark.parametrize("room", [60_000, 2**30], ids=["again", "kept"])
@pytest.mark.usefixtures("by_kernel")
def test_the_whole_way_back(room: int) -> None:
    hidden, head = wide(900, 7)
    observed, found = observed_of(900, 7).to(DEVICE), []
    for run in (
        lambda x: logprobs_with_grad(x, head, observed, temperature=0.7, logits_bytes=room)[0],
        lambda x: _full(x, head, observed),
    ):
        leaf = hidden.clone().requires_grad_()
        logp = run(leaf)
        found.append((logp.detach(), *torch.autograd.grad(logp.sum(), leaf)))
    for here, there in zip(*found, strict=True):
        assert_close(here, there.double(), 2e-5)


@pytest.mark.parametrize("how", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("logits_bytes", [60_000, 2**30], ids=["again", "kept"])
@pytest.mark.usefixtures("by_kernel")
def test_the_gradient_of_a_divergence(how: dict[str, Any], logits_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head = wide(900, 7, **how)
    observed = observed_of(900, 7).to(DEVICE)
    top = topk_stats(hidden.roll(1, 0) + hidden, head, observed, k=5, temperature=0.7)
    observed[::2] = top.ids[::2, 3]
    q, found = outcomes_of_top(top, observed), []
    for _ in ("by the kernel", "without it"):
        leaf = hidden.clone().requires_grad_()
        logprobs, stats = logprobs_with_grad(
            leaf, head, observed, ids=(top.ids,), temperature=0.7, logits_bytes=logits_bytes, grad_ids_index=0
        )
        at_ids, tail = stats.logprobs_at[0]
        d = divergence_of(outcomes(at_ids, logprobs, tail, top, observed), q)
        found.append((d.detach(), *torch.autograd.grad(d.sum() + logprobs.sum(), leaf)))
        monkeypatch.setattr(rows, "uses_kernel", lambda hidden: False)
    for ours, without in zip(*found, strict=True):
        assert_close(ours, without.double(), 2e-5)


def _full(hidden: Tensor, head: Head, observed: Tensor) -> Tensor:
    z = torch.nn.functional.linear(hidden, head.weight) * head.scale / 0.7
    return z.log_softmax(-1).gather(1, observed[:, None])[:, 0]


def test_it_compiles_and_reads_four_numbers_at_once(tmp_path: Path) -> None:
    """Also where it is only run line by line: the interpreter takes what the compiler refuses."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).parents[1] / "helpers/compiling.py"
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 4 4\n4 4 4\n"


@pytest.mark.skipif(
    DEVICE == "cpu", reason="CUDA is not there: the kernel was run line by line and compiled, and never ran as compiled"
)
def test_on_cuda_it_is_the_kernel_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    was = kernel.compute_group_stats
    monkeypatch.setattr(kernel, "compute_group_stats", lambda raw, *more: (ran.append(len(raw)), was(raw, *more))[1])
    hidden, head = drawn(3000, 8, dtype=torch.bfloat16)
    topk_stats(hidden.cuda(), Head(head.weight.cuda()), observed_of(3000, 8).cuda(), k=5)
    assert ran == [8]
