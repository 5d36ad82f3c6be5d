"""The lab's plain policy reads its references, and a text that says nothing moves none of its tokens."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.scoring import student_of, teacher_of
from helpers.tiny_policy import Watcher
from sgcd.assemble import assemble
from sgcd.contrast.insert import build_teacher_input_ids, encode_reference, write_neutral_text
from sgcd.lab.reference_effect import play_with_references
from sgcd.lab.tasks import generate_tasks
from sgcd.learn.policy.load import load_policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.learn.training.trainer import Trainer
from sgcd.measure.health import run_warnings
from sgcd.measure.reading import MIN_PAIRS, newest_reading_counts, own_above_swapped
from sgcd.recipe.load import load_recipe
from sgcd.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow
REFERENCE = (
    "Successful attempts call find_user, then transfer_to_human.\nAttempts first part after find_user.\n"
    "Successful attempts call transfer_to_human."
)


def test_under_a_neutral_text_no_token_has_a_nat() -> None:
    policy = load_policy("lab:plain", "float32")
    tasks = generate_tasks("dev", 1)[:100]
    with ThreadPoolExecutor(1) as executor:
        sampler = TorchSampler(policy.model, policy.chat, SamplerSettings(slots=100), executor)
        playing = play_with_references(tasks, [""] * 100, 1, chat=policy.chat, sampler=sampler, seed=3)
        rollouts = [rollout for (rollout,) in asyncio.run(playing)]
    largest = {}
    for name, text in {"neutral": write_neutral_text(REFERENCE), "own": REFERENCE}.items():
        ids = encode_reference(policy.chat, text)
        assert policy.chat.tokenizer.unk_token_id not in ids
        rows = [build_teacher_input_ids(rollout, ids) for rollout in rollouts]
        topk = teacher_of(policy.model, rollouts, rows, 1.0, 8192, 100)
        features = student_of(policy.model, rollouts, [topk], 1.0, 8192, "reverse_kl").features[0]
        largest[name] = np.concatenate([one.divergence for one in features if one]).max()
    assert largest["neutral"] < 1 < largest["own"]


def test_the_sample_of_pairs_says_that_references_are_read(tmp_path: Path) -> None:
    changes = ["steps=3", "scoring.reading_every=1", "evaluation.every=9", "evaluation.trials=1"]
    recipe = load_recipe(Path("recipes/lab/sgcd.yaml"), changes)
    folder = RunFolder.create(tmp_path / "run", "", {})
    context = assemble(recipe)
    try:
        asyncio.run(Trainer(recipe, context, Watcher(), folder=folder).run())
    finally:
        context.model_thread.shutdown()
    rows = folder.read_metrics()
    counts = newest_reading_counts(rows)
    estimate = own_above_swapped(counts)
    assert sum(one.swapped_pairs for one in counts) >= MIN_PAIRS
    assert estimate.low is not None and estimate.low > 0.7
    assert not any("does not read" in warning for warning in run_warnings(rows))
