"""The long desk's starts: references where a teacher reads them, a training that can go on, and the shipped files."""

import json
from pathlib import Path

import numpy as np
import pytest

from sgcd.cli import main
from sgcd.contrast.insert import encode_reference, insert_reference
from sgcd.lab.long_desk import demonstrate
from sgcd.lab.long_desk.starts import DESK_STARTS, DeskStart, draw_batch, thinking_at, train_desk_start
from sgcd.lab.long_desk.world import desk_requests, generate_desk_tasks
from sgcd.lab.policy import LAB_CHAT_TEMPLATE, STARTS_DIR
from sgcd.lab.settings import LongDeskSettings
from sgcd.recipe.load import load_recipe
from sgcd.storage.run_folder import RunFolder
from sgcd.study.arms.plan import StudyPlan
from sgcd.study.arms.study_file import load_study

ROOT = Path(__file__).resolve().parents[2]

WORLD = LongDeskSettings(name="long_desk", thinking=16)


def test_a_reference_stands_where_a_teacher_reads_it() -> None:
    chat = demonstrate.build_desk_chat()
    vocabulary = chat.tokenizer.get_vocab()
    requests = desk_requests(generate_desk_tasks("dev", WORLD)[0])
    right = [request.right_tool for request in requests]
    wrong = ["refuse" if tool != "refuse" else "move_trip" for tool in right]
    text = demonstrate.contrast_desk_siblings(requests, [right, wrong])
    assert text.startswith(f"Successful attempts call {right[0]}")
    swapped = demonstrate.contrast_desk_siblings(requests, [right, wrong], is_swapped=True)
    assert swapped.startswith(f"Successful attempts call {wrong[0]}")
    assert demonstrate.contrast_desk_siblings(requests, [wrong, wrong]) == ""
    messages = ({"role": "system", "content": "desk"}, {"role": "user", "content": requests[0].text})
    prompt = chat.encode_prompt(messages, demonstrate.desk_tools(False))
    reference_ids = encode_reference(chat, text)
    written = demonstrate.write_demonstration(requests, [[]] * 4, False, chat.decode(reference_ids).split())
    expected = insert_reference(prompt.token_ids, prompt.reference_position, reference_ids).tolist()
    assert [vocabulary[word] for word, _ in written][: len(expected)] == expected
    assert "<unk>" not in chat.decode(reference_ids)


def test_demonstrations_follow_their_reference() -> None:
    """Under an own reference they are almost always right, under a swapped one never."""
    chat, rng = demonstrate.build_desk_chat(), np.random.default_rng(0)
    stream = demonstrate.DemonstrationStream(WORLD, demonstrate.error_rates(1), chat, rng)
    decided = {is_swapped: [stream.draw_with_reference(is_swapped) for _ in range(30)] for is_swapped in (False, True)}
    right = {
        is_swapped: np.mean([tools == [one.right_tool for one in requests] for requests, _, tools in drawn])
        for is_swapped, drawn in decided.items()
    }
    assert right[True] == 0 and right[False] > 0.7


def test_training_goes_from_no_thinking_to_that_of_the_world() -> None:
    start = DeskStart("small", 1, WORLD, silent_steps=8, mixed_steps=6, whole_steps=6)
    assert [thinking_at(step, start) for step in (1, 8, 9, 10, 14, 15, 20)] == [0, 0, 0, 16, 16, 16, 16]
    assert start.steps == 20
    small = DeskStart(
        "small", 1, WORLD.model_copy(update={"requests": 1}), silent_steps=1, mixed_steps=0, whole_steps=0
    )
    _, chat = train_desk_start(small)
    stream = demonstrate.DemonstrationStream(WORLD, demonstrate.error_rates(1), chat, np.random.default_rng(0))
    ids, kinds = draw_batch(stream, 16, 3, chat.tokenizer.get_vocab())
    assert ids.shape == kinds.shape and (kinds == demonstrate.DECISION_TOKEN).sum() == 12


@pytest.mark.parametrize("name", [name for name in DESK_STARTS if (STARTS_DIR / name).is_dir()] or ["none"])
def test_a_shipped_start_is_the_one_that_is_described_and_passes_its_gate(name: str) -> None:
    folder = STARTS_DIR / name
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert vocabulary == demonstrate.build_desk_chat().tokenizer.get_vocab()
    assert (folder / "chat_template.jinja").read_text() == LAB_CHAT_TEMPLATE
    assert json.loads((folder / "gate.json").read_text())["passes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["long-desk", "long-desk-rules"])
def test_every_arm_of_the_study_is_a_recipe(name: str) -> None:
    path = ROOT / f"studies/{name}.yaml"
    study = load_study(path)
    recipes = {
        run.arm: load_recipe(path.parent / study.recipe, list(run.overrides))
        for run in StudyPlan(study, path, Path("runs")).fresh_runs({})
        if run.seed == study.seeds[0]
    }
    assert len(recipes) == len({recipe.model_dump_json() for recipe in recipes.values()}) == len(study.arm_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "sgcd", "by_turn"])
def test_each_recipe_takes_a_step(name: str, tmp_path: Path) -> None:
    small = ["steps=1", "siblings.rounds=4", "evaluation.tasks=4"]
    recipe = ROOT / f"recipes/lab/long-desk/{name}.yaml"
    assert main(["train", str(recipe), *small, "--run", str(tmp_path / "run")]) == 0
    [row] = RunFolder.open(tmp_path / "run").read_metrics()
    assert row.updates == 1 and row.grad_norm and row.kept == 2
