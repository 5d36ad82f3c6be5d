"""A group as the tree of its prefixes: who stands where, who sees whom, and the same numbers as row by row."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.families import EXACT, FAMILIES, family
from helpers.tiny_policy import Example, credited, model, rollout
from sgcd.learn.policy.head import get_backbone
from sgcd.learn.scoring.forward import ForwardConfig, build_batch, join_ids, split_micro_batches
from sgcd.learn.scoring.prefix_tree import PrefixTree, build_prefix_tree, split_by_prefix
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.scoring.teacher import TeacherOutcomes, score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.learn.scoring.tree_attention import TreeRow, forward_tree, why_not_shared
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.audit import ContextAudit
from sgcd.learn.training.gradient import GradientAccumulator, accumulate_credited_group
from sgcd.learn.training.surrogate import BatchSize
from sgcd.records import Rollout, TokenIds

TREE_FAMILIES = [
    name if name == "qwen3" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "qwen3.5"
]
SHARED, ALONE = ForwardConfig(0.7, 10_000, share=True), ForwardConfig(0.7, 10_000)


def ids(*numbers: int) -> TokenIds:
    return np.array(numbers, np.int32)


@st.composite
def sequences_of_a_tree(draw: st.DrawFn) -> list[TokenIds]:
    """Sequences that branch up to five times: some equal, some a prefix of others, some alone."""
    sequences = [ids(*draw(st.lists(st.integers(3, 59), min_size=1, max_size=8)))]
    for _ in range(draw(st.integers(0, 5))):
        parent = sequences[draw(st.integers(0, len(sequences) - 1))]
        kept = draw(st.integers(0, len(parent)))
        branch = draw(st.lists(st.integers(3, 59), min_size=int(kept == 0), max_size=8))
        sequences.append(np.concatenate([parent[:kept], ids(*branch)]))
    return sequences


def group_of(sequences: Sequence[TokenIds]) -> list[Rollout]:
    """Rollouts with these ids; the policy wrote every other token after the first."""
    group: list[Rollout] = []
    for sibling, sequence in enumerate(sequences):
        sequence = np.concatenate([ids(7), sequence])
        one = rollout(("x." * len(sequence))[: len(sequence) - 1], sibling=sibling, prompt=1)
        group.append(replace(one, prompt=sequence[:1], response=sequence[1:]))
    return group


def hidden_of(policy: Any, sequences: Sequence[TokenIds]) -> list[torch.Tensor]:
    """Each sequence in a row of its own."""
    rows = [torch.from_numpy(each.astype(np.int64))[None] for each in sequences]
    return [get_backbone(policy)(input_ids=row, use_cache=False).last_hidden_state[0] for row in rows]


def gradient_of(policy: Any) -> torch.Tensor:
    found = torch.cat([one.grad.flatten() for one in policy.parameters() if one.grad is not None])
    policy.zero_grad()
    return found


def test_a_tree_written_out() -> None:
    tree = build_prefix_tree([ids(5, 6, 8), ids(5, 6, 7, 9), ids(5, 6), ids(4), ids(5, 6, 8)])
    assert tree.token_ids.tolist() == [4, 5, 6, 7, 9, 8]
    assert tree.positions.tolist() == [0, 0, 1, 2, 3, 2]
    assert tree.ends.tolist() == [1, 6, 6, 5, 5, 6]
    assert [places.tolist() for places in tree.places] == [[1, 2, 5], [1, 2, 3, 4], [1, 2], [0], [1, 2, 5]]
    assert tree.nodes() == [(0, 1, 1), (1, 3, 6), (3, 5, 5), (5, 6, 6)]
    assert tree.path(4).tolist() == [1, 2, 3, 4]
    assert tree.max_length == 4
    seen = (~TreeRow(tree, torch.device("cpu")).masked(None)[0, 0]).int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 1],
    ]
    in_window = (~TreeRow(tree, torch.device("cpu")).masked(2)[0, 0]).int().tolist()
    assert in_window[4] == [0, 0, 0, 1, 1, 0]
    assert in_window[5] == [0, 0, 1, 0, 0, 1]


@settings(max_examples=30, deadline=None)
@given(sequences_of_a_tree())
def test_each_sequence_is_a_path_and_no_prefix_is_there_twice(sequences: list[TokenIds]) -> None:
    tree = build_prefix_tree(sequences)
    prefixes = {tuple(each[: stop + 1].tolist()) for each in sequences for stop in range(len(each))}
    assert tree.num_tokens == len(prefixes)
    for sequence, places in zip(sequences, tree.places, strict=True):
        assert tree.token_ids[places].tolist() == sequence.tolist()
        assert tree.positions[places].tolist() == list(range(len(sequence)))
        assert tree.path(int(places[-1])).tolist() == places.tolist()
    nodes = tree.nodes()
    assert [start for start, _, _ in nodes] == [0, *(stop for _, stop, _ in nodes[:-1])]
    assert nodes[-1][1] == tree.num_tokens


@settings(max_examples=30, deadline=None)
@given(sequences_of_a_tree(), st.integers(1, 30))
def test_parts_keep_to_the_budget_and_are_a_function_of_the_sequences(
    sequences: list[TokenIds], max_tokens: int
) -> None:
    parts = split_by_prefix(sequences, max_tokens)
    assert sorted(index for part in parts for index in part) == list(range(len(sequences)))
    for part in parts:
        assert build_prefix_tree([sequences[index] for index in part]).num_tokens <= max_tokens or len(part) == 1
    backwards = sequences[::-1]
    turned = [[backwards[index].tolist() for index in part] for part in split_by_prefix(backwards, max_tokens)]
    assert turned == [[sequences[index].tolist() for index in part] for part in parts]


@pytest.mark.parametrize("name", TREE_FAMILIES)
@settings(max_examples=5, deadline=None)
@given(sequences=sequences_of_a_tree())
def test_hidden_states_and_gradients_are_those_of_rows(name: str, sequences: list[TokenIds]) -> None:
    policy = family(name)
    tree, expected = build_prefix_tree(sequences), torch.cat(hidden_of(policy, sequences))
    pull = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(0))
    (expected * pull).sum().backward()
    expected_gradient = gradient_of(policy)
    got = forward_tree(policy, tree)[torch.from_numpy(np.concatenate(tree.places))]
    (got * pull).sum().backward()
    assert torch.allclose(got, expected, atol=10 * EXACT[name], rtol=0)
    # Norms are in float32 inside, whatever the type of the weights is.
    assert torch.allclose(gradient_of(policy), expected_gradient, atol=1e-6 * float(expected_gradient.abs().max()))


@settings(max_examples=5, deadline=None)
@given(sequences=sequences_of_a_tree(), data=st.data())
def test_a_changed_token_changes_its_own_branch_alone(sequences: list[TokenIds], data: st.DataObject) -> None:
    policy = family("gemma3")
    tree = build_prefix_tree(sequences)
    changed = data.draw(st.integers(0, tree.num_tokens - 1))
    other_ids = tree.token_ids.copy()
    other_ids[changed] = 60 - other_ids[changed] if other_ids[changed] != 30 else 31
    with torch.no_grad():
        before, after = forward_tree(policy, tree), forward_tree(policy, replace(tree, token_ids=other_ids))
    same = (before == after).all(-1).numpy()
    assert same[:changed].all()
    assert same[tree.ends[changed] :].all()
    assert not same[changed]


def losses(policy: Any, group: list[Rollout], config: ForwardConfig) -> tuple[float, torch.Tensor]:
    batch = [
        Example(each, np.full(len(each.response), 1.5 - each.sibling, np.float32), each.sampling_logprobs)
        for each in group
    ]
    gradient = GradientAccumulator(
        model=policy, surrogate=SurrogateSettings(), size=BatchSize.of(group, max_tokens=60), config=config
    )
    accumulate_credited_group(gradient, credited(batch))
    return gradient.loss, gradient_of(policy)


def read_teacher(policy: Any, group: list[Rollout], config: ForwardConfig) -> list[TeacherOutcomes]:
    """Every rollout after its prompt and the same reference."""
    inputs = [
        TeacherInput(
            each, np.concatenate([each.prompt, ids(9, 8, 9), each.response]), np.ones(len(each.response), bool)
        )
        for each in group
    ]
    return [topk for topk in score_teacher(policy, inputs, k=5, config=config) if topk is not None]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(sequences=sequences_of_a_tree(), tokens=st.sampled_from([1, 12, 10_000]))
def test_any_tree_gives_the_numbers_of_rows(sequences: list[TokenIds], tokens: int) -> None:
    compare_with_rows(sequences, tokens)


@pytest.mark.parametrize("tokens", [12, 10_000])
def test_loss_logprobs_divergence_and_gradient_are_those_of_rows(tokens: int) -> None:
    compare_with_rows([ids(5, 6, 7, 8, 9), ids(5, 6, 7, 4), ids(5, 6, 7, 8, 9), ids(5, 6), ids(3, 9)], tokens)


def compare_with_rows(sequences: list[TokenIds], tokens: int) -> None:
    policy = model(torch.float32, 60)
    group = [each for each in group_of(sequences) if each.num_policy_tokens]
    alone, shared = ALONE, replace(SHARED, micro_batch_tokens=tokens)
    teachers = [read_teacher(policy, group, config) for config in (alone, shared)]
    for one, other in zip(*teachers, strict=True):
        assert torch.equal(one.observed_ids, other.observed_ids)
        assert torch.allclose(one.outcome_logprobs[:, :5], other.outcome_logprobs[:, :5], atol=1e-5)
    scores = [
        score_student_no_grad(policy, group, [teachers[0]], divergence="reverse_kl", config=config)
        for config in (alone, shared)
    ]
    for index in range(len(group)):
        assert np.abs(scores[0].logprobs[index] - scores[1].logprobs[index]).max() < 1e-5
        divergences = [each.features[0][index].divergence for each in scores]  # pyright: ignore[reportOptionalMemberAccess]
        assert np.abs(divergences[0] - divergences[1]).max() < 1e-5
    (loss, gradient), (shared_loss, shared_gradient) = (losses(policy, group, config) for config in (alone, shared))
    assert shared_loss == pytest.approx(loss, abs=1e-5)
    assert torch.allclose(shared_gradient, gradient, atol=1e-5)


def test_a_group_is_one_row_and_unlike_rollouts_of_one_length_are_not() -> None:
    policy = model(torch.float32, 60)
    siblings = group_of([ids(*range(10, 30), last) for last in range(40, 44)])
    batch = build_batch(policy, siblings, SHARED)
    assert batch.num_tokens == 1 + 20 + 4
    assert split_micro_batches(policy, siblings, replace(SHARED, micro_batch_tokens=25)) == [[0, 1, 2, 3]]
    assert split_micro_batches(policy, siblings, replace(SHARED, micro_batch_tokens=24)) == [[0, 1, 2], [3]]
    assert build_batch(policy, siblings, ALONE).num_tokens == 4 * 22
    strangers = group_of([ids(*range(start, start + 20)) for start in (10, 20, 30)])
    assert build_batch(policy, strangers, SHARED).num_tokens == 3 * 21


def test_layers_that_are_computed_again_read_the_same_tree() -> None:
    sequences = [ids(5, 6, 7, 8), ids(5, 6, 9), ids(5, 6, 7, 3)]
    group = group_of(sequences)
    policy = family("llama", dtype=torch.float32)
    plain = losses(policy, group, SHARED)
    policy.activation_checkpointing_enable({"use_reentrant": False})
    again = losses(policy, group, SHARED)
    assert again[0] == plain[0]
    assert torch.equal(again[1], plain[1])


def test_the_audit_reads_the_rows_of_a_tree() -> None:
    policy = family("qwen3", dtype=torch.float32)
    group = group_of([ids(5, 6, 7, 8), ids(5, 6, 9), ids(5, 6)])
    audit = ContextAudit(policy)
    tree = build_prefix_tree([join_ids(each) for each in group])
    forward_tree(policy, tree)
    assert audit.count_unexpected(group) == 0
    forward_tree(policy, tree)
    assert audit.count_unexpected(group[:2]) == 1
    changed = tree.token_ids.copy()
    changed[-1] += 1
    forward_tree(policy, replace(tree, token_ids=changed))
    assert audit.count_unexpected(group) == 1
    leaking = PrefixTree(tree.token_ids, tree.positions, np.full(tree.num_tokens, tree.num_tokens), tree.places)
    forward_tree(policy, leaking)  # each token sees all before it
    assert audit.count_unexpected(group) > 0


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda policy: setattr(policy.config, "_attn_implementation", "flash_attention_2"), "flash_attention_2 takes"),
        (lambda policy: setattr(policy.model, "forward", lambda input_ids, use_cache: None), "it takes no mask of a"),
    ],
)
def test_a_model_that_reads_no_tree_is_named_once(break_it: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    policy = family("llama", dtype=torch.float32)
    break_it(policy)
    for _ in range(2):
        assert why_not_shared(policy).startswith(reason)
    assert caplog.text.count("scoring.share: llama: ") == 1
    siblings = group_of([ids(*range(10, 30), last) for last in range(40, 44)])
    assert build_batch(policy, siblings, SHARED).num_tokens == 4 * 22


def test_linear_attention_cannot_branch(caplog: pytest.LogCaptureFixture) -> None:
    assert why_not_shared(family("qwen3.5")) == "layers of linear_attention keep a state that cannot branch"
    assert "scoring.share: qwen3_5_text: layers of linear_attention" in caplog.text


def test_a_model_that_ignores_the_tree_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = family("qwen3", dtype=torch.float32)
    honest = policy.model.forward

    def forget(**given: Any) -> Any:
        return honest(**{**given, "attention_mask": None, "prefix_tree": None})

    monkeypatch.setattr(policy.model, "forward", forget)
    assert why_not_shared(policy) == "its hidden states differ in a tree"
