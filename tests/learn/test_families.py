"""Every family is sampled, scored and trained to the same numbers, whatever stands beside a rollout in its batch."""

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import EXACT, FAMILIES, family
from helpers.ragged_conversations import END, conversation, play, reference, sampler_of
from helpers.scoring import logprobs_of
from helpers.tiny_policy import CHAT, Example, Watcher, accumulated, build_context, recipe, rollout
from sgcd.errors import PolicyError
from sgcd.learn.policy.attention_masks import AttentionMasks
from sgcd.learn.policy.load import Policy, load_policy
from sgcd.learn.sampling.engine import Engine
from sgcd.learn.sampling.sample_tokens import UniformStream
from sgcd.learn.sampling.sequence_state import SequenceState
from sgcd.learn.scoring.forward import split_by_length
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.trainer import Trainer
from sgcd.storage.run_folder import RunFolder

each_family = pytest.mark.parametrize("name", FAMILIES)
MASKS = ("xx..xxx", "x", "....xxxxxxxxxx", "xxx.x.x.x", "xxxxx")
ROLLOUTS = [rollout(mask, sibling=index, prompt=2 + 5 * index) for index, mask in enumerate(MASKS)]


@pytest.fixture(scope="module")
def thread() -> Any:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@each_family
def test_the_engine_samples_what_a_plain_forward_says(name: str) -> None:
    """Ragged turns, shared prompts, rows that change places; longer than the window of sliding layers."""
    model = family(name)
    engine = Engine(model, 4, (END,), top_p=1.0)
    places = [SequenceState(i, 1.0, UniformStream(i)) for i in range(4)]
    contexts: list[list[int]] = [[] for _ in places]
    starts: list[list[tuple[int, list[float]]]] = [[] for _ in places]
    for turn in range(3):
        playing = [place for place in places if turn < 3 - place.index % 2]
        for place in playing:
            new = np.arange(3, 4 + place.index, dtype=np.int32) if turn else conversation(place.index)[0][0]
            place.start_turn(new, 3 + 5 * ((place.index + turn) % 4))
            contexts[place.index] += new.tolist()
        engine.sample_turn(playing)
        for place in playing:
            starts[place.index].append((len(contexts[place.index]), place.logprobs))
            contexts[place.index] += place.sampled_ids
    for context, turns in zip(contexts, starts, strict=True):
        rows = reference(model, context)
        for start, logp in turns:
            ids = torch.tensor(context[start : start + len(logp)])
            expected = rows[start - 1 : start - 1 + len(logp)].gather(1, ids[:, None])[:, 0]
            assert np.abs(expected.numpy() - np.array(logp)).max() < EXACT[name]


@pytest.mark.parametrize("name", ["qwen3.5", "gemma3"])
def test_free_sampling_moves_rows_with_all_that_belongs_to_them(name: str, thread: Executor) -> None:
    model = family(name)
    lockstep = [played.context for played in play(sampler_of(model, thread))]
    assert [played.context for played in play(sampler_of(model, thread, "continuous"), 1)] == lockstep


@each_family
def test_log_probabilities_do_not_depend_on_the_neighbours(name: str) -> None:
    model = family(name)
    alone = [logprobs_of(model, [each], 0.7, 1000)[0] for each in ROLLOUTS]
    together = logprobs_of(model, ROLLOUTS, 0.7, 1000)
    for a, b in zip(alone, together, strict=True):
        assert np.abs(a - b).max() < 2e-6


@each_family
def test_padding_on_either_side_changes_nothing(name: str) -> None:
    model = family(name, dtype=torch.float32 if name == "gemma2" else torch.float64)  # eager has no mask in float64
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, 60, (1, 20)))
    nothing = torch.zeros(1, 9, dtype=torch.long)
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        right = model(input_ids=torch.cat([ids, nothing], 1)).logits[:, :20]
        mask = torch.cat([nothing, torch.ones_like(ids)], 1)
        where = (mask.cumsum(-1) - 1).clamp(min=0)
        left = model(torch.cat([nothing, ids], 1), attention_mask=mask, position_ids=where).logits[:, 9:]
    assert torch.allclose(right, plain, atol=10 * EXACT[name], rtol=0)
    assert torch.allclose(left, plain, atol=10 * EXACT[name], rtol=0)


@each_family
def test_splitting_leaves_loss_and_gradient_as_they_are(name: str) -> None:
    model = family(name)
    examples = [
        Example(each, np.full(len(each.response), 1.5 - each.sibling, np.float32), logp - np.float32(0.1))
        for each, logp in zip(ROLLOUTS, logprobs_of(model, ROLLOUTS, 0.7, 1000), strict=True)
    ]
    found: list[tuple[float, torch.Tensor]] = []
    for tokens in (1000, 30):
        sums = accumulated(model, examples, SurrogateSettings(), 0.7, tokens)
        found.append((sums.loss, torch.cat([each.grad.flatten() for each in model.parameters()])))
        model.zero_grad()
    assert len(split_by_length(ROLLOUTS, 30)) > 2
    assert found[0][0] == pytest.approx(found[1][0], abs=EXACT[name])
    assert torch.allclose(found[0][1], found[1][1], atol=100 * EXACT[name], rtol=0)


@pytest.mark.parametrize(
    "name", [pytest.param("llama", marks=pytest.mark.slow), pytest.param("gemma3", marks=pytest.mark.slow), "qwen3.5"]
)
def test_three_steps_of_a_whole_run(name: str, tmp_path: Path) -> None:
    """From prompts to a saved policy, with the lab's words; what was sampled is what is scored."""
    brief = {"groups": 2, "group_size": 3, "limits": {"turns": 1, "tokens": 16}}
    measured = {"every": 9, "trials": 1, "tasks": 1}
    plan = recipe(steps=3, siblings=brief, optimizer={"lr": 1e-3}, evaluation=measured, checkpoint={"every": 3})
    alive = build_context(tmp_path / "run", plan, policy=family(name, CHAT.vocab_size, torch.float32))
    watcher = Watcher()
    try:
        asyncio.run(Trainer(plan, alive, watcher, folder=RunFolder.open(tmp_path / "run")).run())
    finally:
        alive.model_thread.shutdown()
    assert [row.step for row in watcher.rows] == [1, 2, 3]
    gaps = [row.sampler_gap_max for row in watcher.rows if row.sampler_gap_max is not None]
    assert gaps
    assert max(gaps) < 2e-4
    again = load_policy(tmp_path / "run" / "policy", "float32").model
    ids = torch.tensor([[5, 9, 30]])
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, alive.policy.model(input_ids=ids).logits)


def test_masks_written_out() -> None:
    config: Any = family("gemma3").config
    assert config.sliding_window == 7
    model = family("gemma3")
    model.config.sliding_window = 2
    made = AttentionMasks(model).build(torch.tensor([[1, 2]]), None, 4)
    seen = {kind: (mask[0, 0] == 0).int().tolist() for kind, mask in made.items()}
    assert seen == {
        "full_attention": [[1, 1, 0, 0], [1, 1, 1, 0]],
        "sliding_attention": [[1, 1, 0, 0], [0, 1, 1, 0]],
    }


def test_a_kind_of_layer_that_no_mask_describes_is_refused() -> None:
    model = family("qwen3")
    model.config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(PolicyError, match=r"^policy: qwen3 has layers of chunked_attention; only full, sliding and"):
        AttentionMasks(model)


def test_a_kernel_that_reads_no_masks_rests_while_the_sampler_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model, told = family("llama"), list[str]()

    def take(kernel: str) -> None:
        told.append(kernel)
        model.config._attn_implementation = kernel

    monkeypatch.setattr(model, "set_attn_implementation", take)
    engine = Engine(model, 1, (END,), top_p=1.0)
    take("flash_attention_2")
    place = SequenceState(0, 1.0, UniformStream(0))
    place.start_turn(np.array([5, 6], np.int32), 1)
    engine.sample_turn([place])
    assert told == ["flash_attention_2", "sdpa", "flash_attention_2"]


def test_a_policy_that_came_under_other_names_is_put_back(tmp_path: Path) -> None:
    """A Qwen3.5 with eyes is loaded without them, and saved under the names it had."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    from sgcd.learn.policy.checkpoint import TrainerState, load_checkpoint, save_checkpoint
    from sgcd.learn.settings import OptimizerSettings
    from sgcd.learn.training.optimizer import build_optimizer
    from sgcd.storage.run_folder import RunFolder

    text = family("qwen3.5", CHAT.vocab_size, torch.float32).config.to_dict()
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen3_5Config(text_config=text, vision_config=eyes)
    Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path / "seeing")
    CHAT.save(tmp_path / "seeing")
    first, second = (load_policy(tmp_path / "seeing", "float32") for _ in range(2))
    optimizers = [build_optimizer(each.model, OptimizerSettings()) for each in (first, second)]
    with torch.no_grad():
        for weight in first.model.parameters():
            weight += 0.5
    folder = RunFolder.create(tmp_path / "run", "version: 1\n", {})
    save_checkpoint(folder, Policy(first.model, CHAT), optimizers[0], state=TrainerState(1))
    assert load_checkpoint(folder, second, optimizers[1]) == TrainerState(1)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_linear_attention_cannot_look_ahead() -> None:
    with pytest.raises(PolicyError, match=r"sampler\.lookahead: the linear attention of .* expected 0, got 4"):
        Engine(family("qwen3.5"), 1, (END,), top_p=1.0, lookahead=4)
