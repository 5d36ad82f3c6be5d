"""Old names of recipe keys still work, and each says its new name once; TRL's names are refused with the right key."""

import re
import shutil
from pathlib import Path

import pytest

from helpers.old_runs import drop_checksums
from sgcd.cli import main
from sgcd.errors import RecipeError
from sgcd.recipe.aliases import RENAMED_KEYS, TRL_KEYS
from sgcd.recipe.keys import list_keys, suggest_keys
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe, dump_recipe, recipe_differences

SGCD = Path("recipes/lab/sgcd.yaml")
VALUES = {
    "policy.attention": "sdpa",
    "policy.checkpointing": "true",
    "surrogate.std": "false",
    "method.against": "swapped",
    "method.segments.least": "0.25",
    "method.segments.confident": "0.25",
}
NEW_PATHS = [key.path for key in list_keys(Recipe)]


def old_text(recipe: Recipe) -> str:
    """The recipe as an earlier version wrote it."""
    lines, sections = list[str](), list[str]()
    old_names = {new: old.rpartition(".")[2] for old, new in RENAMED_KEYS.items()}
    for line in dump_recipe(recipe).splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            lines.append(line)
            continue
        depth = (len(name) - len(name.lstrip())) // 2
        sections = [*sections[:depth], name.strip()]
        lines.append(f"{'  ' * depth}{old_names.get('.'.join(sections), name.strip())}:{value}")
    return "\n".join(lines).replace("mode: continuous", "mode: free")


def test_new_names_are_keys_of_the_recipe_and_old_ones_are_not():
    assert {*RENAMED_KEYS.values()} <= {*NEW_PATHS}
    assert not {*RENAMED_KEYS} & {*NEW_PATHS}
    assert all(old.rpartition(".")[0] == new.rpartition(".")[0] for old, new in RENAMED_KEYS.items())


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_an_old_override_sets_the_new_key(old: str, caplog: pytest.LogCaptureFixture):
    value = VALUES.get(old, "7")
    assert load_recipe(SGCD, [f"{old}={value}"]) == load_recipe(SGCD, [f"{RENAMED_KEYS[old]}={value}"])
    assert caplog.messages == [f"{old} is now {RENAMED_KEYS[old]}"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("siblings={size: 4}", "siblings={group_size: 4}"),
        ("method={name: sgcd, segments: {full: 4.0}}", "method={name: sgcd, segments: {saturation: 4.0}}"),
        ("method.segments={tokens: 4, rise: 1.0}", "method.segments={min_tokens: 4, entropy_rise: 1.0}"),
        ("method.against=foreign", "method.compare_with=next_reference"),
        ("method={name: sgcd, against: foreign}", "method={name: sgcd, compare_with: next_reference}"),
        ("sampler={mode: free}", "sampler={mode: continuous}"),
        ("sampler.mode=free", "sampler.mode=continuous"),
    ],
)  # fmt: skip
def test_old_names_inside_a_value_work(old: str, new: str):
    assert load_recipe(SGCD, [old]) == load_recipe(SGCD, [new])


def test_a_recipe_of_an_earlier_version_is_read_without_a_difference(caplog: pytest.LogCaptureFixture):
    recipe = load_recipe(SGCD, ["sampler.mode=continuous", "method.segments.rise=0.5"])
    caplog.clear()
    text = old_text(recipe)
    newest = {new: old for old, new in RENAMED_KEYS.items()}
    assert all(f"{old.rpartition('.')[2]}:" in text for old in newest.values())
    assert "group_size" not in text
    assert recipe_differences(recipe, load_recipe(text)) == []
    assert len(caplog.messages) == 1
    assert all(f"{old} is now {new}" in caplog.text for new, old in newest.items())
    assert "sampler.mode=free is now sampler.mode=continuous" in caplog.text


def test_the_last_override_wins_whatever_its_name():
    assert load_recipe(SGCD, ["siblings.size=4", "siblings.group_size=5"]).siblings.group_size == 5
    assert load_recipe(SGCD, ["siblings.group_size=5", "siblings.size=4"]).siblings.group_size == 4


def test_a_recipe_with_both_names_is_refused():
    for text in (SGCD.read_text().replace("group_size: 8", "group_size: 8\n  size: 8"), None):
        with pytest.raises(RecipeError, match=r"siblings.size and siblings.group_size are the same key; keep"):
            load_recipe(text or SGCD, [] if text else ["siblings={size: 4, group_size: 4}"])


def test_a_misspelt_old_name_leads_to_the_new_one():
    assert suggest_keys("siblings.sise", NEW_PATHS) == ["siblings.group_size"]
    assert suggest_keys("scoring.byte", NEW_PATHS) == ["scoring.logits_bytes"]
    assert suggest_keys("method.segments.confidnet", NEW_PATHS) == ["method.segments.entropy_quantile"]


@pytest.mark.usefixtures("at_desk")
def test_the_command_line_says_the_new_name_once(capsys: pytest.CaptureFixture[str]):
    """An old run folder resumes; its recipe is read twice, and the notice is one line."""
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", "siblings.size=4"]) == 0
    notice = "siblings.size is now siblings.group_size\n"
    assert capsys.readouterr().err.count(notice) == 1
    path = Path("A/recipe.yaml")
    shutil.copytree("A", "B")
    drop_checksums(Path("A"))
    path.write_text(old_text(load_recipe(path)))
    assert main(["train", "--run", "A", "--resume", "steps=2"]) == 0
    said = capsys.readouterr()
    assert said.err.count("siblings.size is now siblings.group_size; ") == 1
    assert load_recipe(path).steps == 2
    assert "group_size: 4" in path.read_text()
    assert main(["train", "--run", "B", "--resume", "steps=2"]) == 0
    assert "is now" not in capsys.readouterr().err
    assert Path("A/policy/model.safetensors").read_bytes() == Path("B/policy/model.safetensors").read_bytes()


@pytest.mark.usefixtures("at_desk")
def test_both_names_are_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]):
    text = Path("recipe.yaml").read_text()
    Path("recipe.yaml").write_text(text.replace("group_size: 4", "group_size: 4, size: 4"))
    assert main(["check", "recipe.yaml"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sgcd: recipe.yaml: siblings.size and siblings.group_size are the same key")


def test_every_name_of_trl_stands_for_a_key_and_the_page_lists_them_in_order():
    assert set(TRL_KEYS.values()) <= set(NEW_PATHS)
    page = (Path(__file__).parents[1] / "docs/from-trl.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", page, re.MULTILINE) == [*TRL_KEYS.items()]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("beta=0.04", "beta=0.04: no such key; did you mean surrogate.kl? TRL's beta"),
        ("optimizer.learning_rate=1e-4", "did you mean optimizer.lr? TRL's learning_rate"),
        ("training.num_generations=8", "did you mean siblings.group_size? TRL's num_generations"),
        ("reward_funcs=mine:score", "did you mean environment.reward? TRL's reward_funcs"),
        ("model=Qwen/Qwen3-0.6B", "did you mean policy.start? TRL's model"),
        ("args={beta: 0.1, loss_type: dapo}", "did you mean surrogate.kl? TRL's beta; args.loss_type="),
        ("reference.model=mine", "did you mean evaluation.model"),
        ("temperature=0.7", "did you mean sampler.temperature or evaluation.temperature"),
    ],
)
def test_a_name_of_trl_is_refused_with_the_key(typed: str, words: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe(SGCD, [typed])
    assert words in str(refusal.value)
