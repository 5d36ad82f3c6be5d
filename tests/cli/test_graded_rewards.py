"""Graded rewards from the recipe to the policy: what docs/rewards.md says, on a desk that wants to hear one word."""

import re
from pathlib import Path

import pytest

from sgcd.cli import main
from sgcd.storage.run_folder import RunFolder

Capture = pytest.CaptureFixture[str]
PAGE = (Path(__file__).parents[2] / "docs/rewards.md").read_text(encoding="utf-8")
KEYS = ["environment.class=graded:Desk", "environment.tasks=graded.jsonl", "environment.dev=null", "steps=1"]
METHOD = "method={name: sgcd, segments: {quiet_tokens: 1}}"
DESK = '''
import front


class Desk(front.Desk):
    """Counts calls; whether it was said yes is a matter of length."""

    num_calls = 0
    said_yes = False

    def find_user(self, name: str) -> str:
        """Find a customer.

        Args:
            name: of the customer
        """
        self.num_calls += 1
        self.said_yes = True
        return f"user {name}"


class InParts(Desk):
    """Each turn is a part, in which nothing or a call is done."""

    def get_parts(self) -> list[float]:
        self.parts = [*getattr(self, "parts", []), float(self.num_calls)]
        return self.parts


def close_enough(environment: Desk, answer: str) -> float:
    return 0.89 if environment.word in answer.split() else 0.44
'''


@pytest.fixture
def at_graded_desk(at_desk: Path) -> Path:
    Path("graded.py").write_text(DESK)
    Path("judges.py").write_text(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0])
    Path("graded.jsonl").write_text(Path("train.jsonl").read_text().replace("front:heard", "graded:close_enough"))
    Path("unjudged.jsonl").write_text(Path("train.jsonl").read_text().replace(', "verifier": "front:heard"', ""))
    return at_desk


@pytest.mark.usefixtures("at_graded_desk")
def test_rewards_below_success_are_learned_from(capsys: Capture):
    assert main(["check", "recipe.yaml", *KEYS]) == 0
    line = r"reward +reward 0\.(89|44) is below environment\.success 1: counts as a failure; learned from as graded"
    assert re.search(line, capsys.readouterr().out)
    assert main(["train", "recipe.yaml", "--run", "A", *KEYS, METHOD]) == 0
    shown = capsys.readouterr()
    [row] = RunFolder.open(Path("A")).read_metrics()
    assert (row.kept, row.success, row.skipped) == (2, 0.0, "")
    assert row.reference is not None
    assert row.reference.written == row.reference.by_reward > 0
    assert "compare better with worse rewards" in shown.out + shown.err
    assert all(reference["contrast"] == "reward" for reference in RunFolder.open(Path("A")).read_references(1))


@pytest.mark.usefixtures("at_graded_desk")
def test_named_rewards_are_weighed_and_kept():
    rewards = ["environment.tasks=unjudged.jsonl", "environment.rewards={right: judges:right, brief: judges:brief}"]
    assert main(["train", "recipe.yaml", "--run", "A", *KEYS, *rewards, "environment.reward_weights={brief: 0.2}"]) == 0
    for stored in RunFolder.open(Path("A")).read_rollouts(1):
        for rollout in stored.group.rollouts:
            assert rollout.verdict is not None
            named = rollout.verdict.facts["rewards"]
            assert rollout.reward in (0.0, pytest.approx(named["right"] + 0.2 * named["brief"]))


@pytest.mark.usefixtures("at_graded_desk")
def test_one_reward_and_several_are_not_both_taken(capsys: Capture):
    both = ["environment.reward=judges:right", "environment.rewards={brief: judges:brief}"]
    assert main(["check", "recipe.yaml", *KEYS, *both]) == 2
    assert "environment: reward and rewards are both set" in capsys.readouterr().err


@pytest.mark.usefixtures("at_graded_desk")
def test_verdicts_by_turn_are_learned_from_where_a_class_gives_them_and_else_refused(capsys: Capture):
    by_turn = [*KEYS, "method={name: by_turn}"]
    assert main(["train", "recipe.yaml", "--run", "A", *by_turn]) == 2
    refusal = capsys.readouterr().err
    assert re.search(r"method\.by_turn: rollout \S+: its environment gives no verdict by turn, expected", refusal)
    assert main(["train", "recipe.yaml", "--run", "B", *by_turn, "environment.class=graded:InParts"]) == 0
    rollout = RunFolder.open(Path("B")).read_rollouts(1)[0].group.rollouts[0]
    assert rollout.verdict is not None
    assert [part["turns"] for part in rollout.verdict.facts["parts"]] == [1] * len(rollout.turns)
