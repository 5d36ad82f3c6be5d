"""A recipe is read whole: what is wrong is named by its full path, with the nearest right key."""

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sgcd.errors import RecipeError
from sgcd.learn.settings import PRESETS, Preset
from sgcd.recipe.keys import list_keys, suggest_keys
from sgcd.recipe.load import load_recipe
from sgcd.recipe.reference_page import document_recipe
from sgcd.recipe.schema import RESUMABLE_KEYS, Recipe, dump_recipe, keep_micro_batches, recipe_differences

LAB = Path("recipes/lab/grpo.yaml")
SMALL = 'version: 1\nsteps: 3\npolicy: {start: "lab:plain"}\nenvironment: {name: lab}\nmethod: {name: grpo}\n'
OWN = "environment={name: own, class: desk:Desk, tasks: tasks.jsonl}"


def refused(source: Path | str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_lab_s_twins_differ_by_their_method_alone():
    grpo, sgcd = load_recipe(LAB), load_recipe(LAB.with_name("sgcd.yaml"))
    assert {each.key.partition(".")[0] for each in recipe_differences(grpo, sgcd)} == {"method"}
    assert sgcd.model_copy(update={"method": grpo.method}) == grpo
    few = {"min_tokens": 8, "entropy_quantile": 1.0, "quiet_tokens": 1}
    assert sgcd.method.model_dump(exclude_defaults=True) == {"name": "sgcd", "k": 20, "segments": few}


def test_the_lab_recipe_is_read_whole():
    recipe = load_recipe(LAB)
    assert (recipe.steps, recipe.optimizer.lr, recipe.siblings.limits.tokens) == (40, 1e-3, 224)


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("optimizer.lr=1e-4", lambda r: r.optimizer.lr, 1e-4),
        ("optimizer.lr=1", lambda r: r.optimizer.lr, 1.0),
        ("seed=12", lambda r: r.seed, 12),
        ("surrogate.scale_by_std=false", lambda r: r.surrogate.scale_by_std, False),
        ("surrogate.clip_high=0.3", lambda r: r.surrogate.clip_high, 0.3),
        ("evaluation.tasks=null", lambda r: r.evaluation.tasks, None),
        ("evaluation.tasks=", lambda r: r.evaluation.tasks, None),
        ("optimizer.betas=[0.8, 0.9]", lambda r: r.optimizer.betas, (0.8, 0.9)),
        ("siblings.limits={turns: 3}", lambda r: (r.siblings.limits.turns, r.siblings.limits.tokens), (3, 512)),
        ("environment.chatty=no", lambda r: r.environment.chatty, "no"),
        ("policy.start=runs/a=b: c #d", lambda r: r.policy.start, "runs/a=b: c #d"),
        ("policy.start='lab:own'", lambda r: r.policy.start, "lab:own"),
        (OWN, lambda r: r.environment.class_, "desk:Desk"),
    ],
)
def test_key_equals_value_is_laid_over_the_file(override: str, read: Any, expected: Any):
    assert read(load_recipe(LAB, [override])) == expected


def test_a_preset_fills_what_is_not_given_and_a_given_key_wins():
    assert set(PRESETS) == set(get_args(Preset))
    plain = load_recipe(SMALL).surrogate
    for name, keys in PRESETS.items():
        recipe = load_recipe(SMALL, [f"surrogate.preset={name}"])
        filled = plain.model_validate(keys).model_copy(update={"preset": name})
        assert recipe.surrogate == filled
        assert (recipe.surrogate == plain.model_copy(update={"preset": name})) is (not keys)
        assert load_recipe(dump_recipe(recipe)) == recipe
    own = load_recipe(SMALL, ["surrogate={preset: dapo, clip: 0.1, overlong: null}"]).surrogate
    assert (own.clip, own.clip_high, own.overlong) == (0.1, 0.28, None)
    typed = load_recipe(LAB, ["surrogate.kl=0.1", "surrogate.preset=gspo"]).surrogate
    assert (typed.clip, typed.kl) == (3e-4, 0.1)  # the file has clip: 0.2
    buffer = load_recipe(SMALL, ["surrogate.preset=dapo", "surrogate.overlong.share=0.5"]).surrogate.overlong
    assert buffer is not None
    assert (buffer.share, buffer.penalty) == (0.5, 1.0)


def test_the_last_of_two_overrides_wins():
    assert load_recipe(SMALL, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("surrogate.clp=0.3", "surrogate.clp=0.3: no such key; did you mean surrogate.clip?"),
        ("lr=1e-4", "did you mean optimizer.lr or supervised.lr?"),
        ("optimiser.lr=1e-4", "optimiser.lr=0.0001: no such key; did you mean optimizer.lr?"),
        (
            "tokens=9",
            "did you mean scoring.micro_batch_tokens or optimizer.micro_batch_tokens or siblings.limits.tokens?",
        ),
        ("surrogate.xyzzy=1", "expected one of surrogate.preset, surrogate.ratio, "),
        ("surrogate.clip=1.0", "surrogate.clip: expected a number, at least 0 and below 1, got 1.0"),
        ("surrogate.clip=.nan", "surrogate.clip: expected a number, at least 0 and below 1, got NaN"),
        ("siblings.group_size=1", "siblings.group_size: expected a whole number, at least 2, got 1"),
        ("seed=true", "seed: expected a whole number, at least 0, got true"),
        ('seed="1"', 'seed: expected a whole number, at least 0, got "1"'),
        ("steps=3.0", "steps: expected a whole number, at least 1, got 3.0"),
        ("seed.x=1", "seed holds 0"),
        ("method=grpo", "method: expected a mapping with "),
        ("method.name=gpro", "method.name: expected grpo"),
        (
            "environment.name=moon",
            "environment.name: expected lab or long_desk or own or airline or appworld or bfcl or openenv "
            'or textworld or recorded, got "moon"',
        ),
        ("environment={horizon: 2}", "environment.name: missing; expected lab or long_desk or own"),
        ("environment={name: own, class: desk, tasks: t}", "environment.class: expected text that matches"),
        ("environment={name: own, tasks: t}", "environment.class: missing"),
        ("environment.class=a:B", "environment.class: only exists with environment.name=own"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer.betas: expected a list of 2"),
        ("surrogate.dual_clip=1", "surrogate.dual_clip: expected a number, above 1, or null, got 1"),
        ("siblings.limits=[1", "not valid YAML"),
        ("seed", "seed: expected key=value"),
        (".seed=1", ".seed=1: expected key=value"),
        ("version=2", "this sgcd reads version 1 of the format, got 2"),
        ("version=true", "this sgcd reads version 1 of the format, got true"),
    ],
)
def test_a_wrong_key_or_value_is_named_by_its_full_path(override: str, said: str):
    assert said in refused(LAB, override)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; expected a recipe, which begins with version: 1"),
        ("just words", 'expected a mapping of keys to values, got "just words"'),
        ("seed: 1\nseed: 2", "line 2: not valid YAML: found duplicate key"),
        ("seed: [1", "line 1: not valid YAML"),
        ("seed: &a [*a]", "contains itself"),
        ("seed: 2024-99-99", "not valid YAML"),
        (SMALL + 'seed: "\\ud800"', "not valid Unicode"),
        (SMALL + "1: 2", "1=2: no such key"),
        ("steps: 1", "version: missing"),
    ],
)
def test_a_text_that_is_no_recipe_is_refused(text: str, said: str):
    assert said in refused(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    assert "nowhere.yaml: expected a recipe's YAML file" in refused(tmp_path / "nowhere.yaml")
    assert "Is a directory" in refused(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(tmp_path / "picture.yaml")


def test_every_problem_is_in_the_one_line():
    message = refused(SMALL, "seed=-1", "surrogate.clp=1", "steps=0", "environment.horizon=9")
    assert all(path in message for path in ("seed:", "surrogate.clip", "steps:", "environment.horizon:"))


def test_an_anchor_shares_text_and_not_what_is_laid_over_it():
    text = SMALL + "scoring: &s {tokens: 5}\noptimizer: *s\n"
    recipe = load_recipe(text, ["scoring.micro_batch_tokens=6"])
    assert (recipe.scoring.micro_batch_tokens, recipe.optimizer.micro_batch_tokens) == (6, 5)


@pytest.mark.parametrize("key", sorted({key.path for key in list_keys(Recipe) if "." in key.path}))
def test_a_key_with_a_letter_dropped_is_guessed(key: str):
    section, _, leaf = key.rpartition(".")
    if len(leaf) > 3:
        paths = [known.path for known in list_keys(Recipe)]
        assert key in suggest_keys(f"{section}.{leaf[:-2]}{leaf[-1]}", paths)


def test_dump_writes_every_key_in_the_order_of_the_recipe():
    text = dump_recipe(load_recipe(LAB))
    assert load_recipe(text) == load_recipe(LAB)
    assert text.startswith(
        "version: 1\nseed: 0\nsteps: 40\ncontrol: none\npolicy:\n  start: lab:plain\n  dtype: float32\n"
    )
    assert 'chatty: "no"' in text  # PyYAML would read it as false
    assert "clip_high: null" in text


@settings(deadline=None, max_examples=30)
@given(
    lr=st.floats(min_value=1e-30, max_value=1e10, exclude_min=True),
    clip=st.floats(min_value=0, max_value=1, exclude_max=True),
    high=st.none() | st.floats(min_value=1e-9, max_value=5),
    seed=st.integers(min_value=0, max_value=2**80),
    system=st.text(st.characters(codec="utf-8")),
    start=st.sampled_from(
        ["1e-4", "no", "null", "~", "2020-01-01", "a: b", "- x", "'", '"', " x ", "0x1f", "é\n\tü", ""]
    ),
)
@example(lr=1.0, clip=0.0, high=None, seed=0, system="a\x85b", start="")  # a line break to some, not to others
def test_load_undoes_dump(lr: float, clip: float, high: float | None, seed: int, system: str, start: str):
    base = load_recipe(SMALL, [OWN])
    recipe = Recipe.model_validate(
        base.model_dump(by_alias=True)
        | {"seed": seed}
        | {"policy": {"start": start}, "optimizer": {"lr": lr}, "surrogate": {"clip": clip, "clip_high": high}}
        | {"environment": base.environment.model_dump(by_alias=True) | {"system": system}}
    )
    assert load_recipe(dump_recipe(recipe)) == recipe


def test_differences_name_the_keys_that_a_person_types():
    old, new = load_recipe(SMALL, ["seed=1"]), load_recipe(SMALL, ["seed=2", "optimizer.betas=[0.5, 0.6]", "steps=9"])
    assert [tuple(each) for each in recipe_differences(old, new)] == [
        ("seed", 1, 2),
        ("steps", 3, 9),
        ("optimizer.betas", [0.9, 0.999], [0.5, 0.6]),
    ]
    assert recipe_differences(old, old) == []
    assert "environment.class" in {each.key for each in recipe_differences(old, load_recipe(SMALL, [OWN]))}


def test_what_a_resumed_run_may_change_are_keys_of_the_recipe():
    assert {key.path for key in list_keys(Recipe)} >= RESUMABLE_KEYS


def test_the_reference_in_the_docs_is_the_one_that_the_fields_give():
    assert Path("docs/recipe.md").read_text() == document_recipe(), (
        "run: python -m sgcd.recipe.reference_page > docs/recipe.md"
    )


def test_every_key_is_documented():
    assert [key.path for key in list_keys(Recipe) if not key.description and not key.is_section] == []


@pytest.mark.parametrize("section", ["evaluation.model", "reference.writer", "environment.user"])
@pytest.mark.parametrize(
    "typed", ["{base_url: http://h/v1, model: m, key: sk-1234}", "{base_url: http://me:sk-1234@h/v1, model: m}"]
)
def test_a_key_in_the_wrong_place_is_not_shown_again(section: str, typed: str):
    with pytest.raises(RecipeError) as refused:
        load_recipe(SMALL, [OWN, f"{section}={typed}", *(["reference.writer.name=llm"] if "writer" in section else [])])
    assert "sk-1234" not in str(refused.value)
    assert "base_url: expected" in str(refused.value) or f"did you mean {section}.key_env?" in str(refused.value)


def test_micro_batches_that_a_recipe_leaves_open_are_those_of_the_start() -> None:
    started = load_recipe(LAB, ["optimizer.micro_batch_tokens=9", "scoring.micro_batch_tokens=8"])
    assert keep_micro_batches(load_recipe(LAB), started) == started
    named = keep_micro_batches(load_recipe(LAB, ["optimizer.micro_batch_tokens=7"]), started)
    assert (named.optimizer.micro_batch_tokens, named.scoring.micro_batch_tokens) == (7, 8)
