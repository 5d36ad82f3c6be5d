"""A class that was written for TRL, with its reward function beside it, through check, train and evaluate."""

import json
import sys
from pathlib import Path

import pytest

from sgcd.cli import main

CLASS = '''
from itertools import count

COINS = count()


class WordEnvironment:
    def __init__(self):
        self.reward = 0.0

    def reset(self, **kwargs) -> str | None:
        self.word = kwargs["word"]
        self.reward = float(next(COINS) % 2)
        return f"please say {self.word}"

    def find_user(self, name: str) -> str:
        """
        Find a customer.

        Args:
            name: Name of the customer.

        Returns:
            What is known of the customer.
        """
        return f"user {name}"


def reward_func(environments, **kwargs):
    return [environment.reward for environment in environments]
'''
ADAPTERS = """
from words import reward_func

LIMIT = 5


def score(environment, row):
    assert environment.word == row["word"]
    return reward_func(environments=[environment])[0]


def undefined(environment, row):
    return float("nan")


def in_words(environment, row):
    return "well done"


def failing(environment, row):
    return row["gold"]
"""


@pytest.fixture
def recipe(at_desk: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that name the smallest recipe with the class, without its reward."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("words", "adapters"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    Path("words.py").write_text(CLASS)
    Path("adapters.py").write_text(ADAPTERS)
    for split in ("train", "dev"):
        rows = [{"prompt": [{"role": "user", "content": "hello"}], "word": ("yes", "no")[i % 2]} for i in range(6)]
        Path(f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["recipe.yaml", "environment.class=words:WordEnvironment"]


def test_it_is_checked_trained_and_evaluated_unchanged(recipe: list[str], capsys: pytest.CaptureFixture[str]):
    words = [*recipe, "environment.reward=adapters:score"]
    assert main(["check", *words]) == 0
    assert main(["train", *words, "--run", "A", "steps=2"]) == 0
    assert main(["evaluate", "A", "--split", "dev", "--trials", "2"]) == 0
    rows = [json.loads(line) for line in Path("A/metrics.jsonl").read_text().splitlines()]
    assert [(row["broken"], row["skipped"]) for row in rows] == [(0, ""), (0, "")]


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("", "the task has no verifier; expected WordEnvironment.get_reward(), environment.reward in the recipe"),
        ("adapters:scroe", "environment.reward: adapters has no 'scroe'; did you mean score?"),
        ("nowhere:score", "environment.reward: nowhere cannot be imported (ModuleNotFoundError"),
        ("adapters:LIMIT", "environment.reward: adapters:LIMIT is no function but int; it must take the object and"),
        ("words:reward_func", "words:reward_func(environments, **kwargs) does not fit (too many positional arguments)"),
        ("score", "environment.reward: expected text that matches"),
        ("adapters:failing", "task 1 breaks (verify: KeyError: 'gold')"),
        ("adapters:undefined", "task 1 breaks (verify: TypeError: adapters:undefined returned nan, expected a finite"),
        ("adapters:in_words", "adapters:in_words returned 'well done', expected a finite number"),
    ],
)
def test_a_reward_that_does_not_fit_is_one_line(
    recipe: list[str], reward: str, words: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["check", *recipe, *([f"environment.reward={reward}"] if reward else [])]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
