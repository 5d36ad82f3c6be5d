"""A credit rule of one's own: the page's rules in real runs, and each signal that does not fit in one line."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgcd.assemble
from helpers.group import LastWords
from helpers.training_runs import group
from sgcd.cli import main
from sgcd.credit.methods import CreditInputs, build_method
from sgcd.credit.settings import OwnMethodSettings
from sgcd.credit_records import Features, Teacher
from sgcd.errors import SgcdError
from sgcd.storage.run_folder import RunFolder

PAGE = (Path(__file__).parents[2] / "docs/own-methods.md").read_text(encoding="utf-8")
RULES = dict(re.findall(r"`(\w+)\.py`:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
CLASSES = {module: re.findall(r"^class (\w+)", source, re.MULTILINE)[0] for module, source in RULES.items()}
NUMBERS = count()
Build = Callable[..., Any]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """The method of a class named Rule, written into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def written(source: str) -> Any:
        module = f"rule_{next(NUMBERS)}"
        Path(f"{module}.py").write_text("import numpy as np\n" + source)
        return build_method(OwnMethodSettings.model_validate({"name": "own", "class": f"{module}:Rule"}))

    return written


def inputs(mask: str = "xx.xx", index: int = 0) -> CreditInputs:
    siblings = group(mask, mask)
    return CreditInputs(siblings.rollouts[index], 0.5 - index, group=siblings)


def rule(returned: str) -> str:
    return f"class Rule:\n    def signal(self, inputs):\n        return {returned}\n"


def test_the_page_has_three_rules_and_the_first_takes_fifteen_lines_at_most():
    assert [*RULES] == ["calls", "only_here", "surprise"]
    assert len(RULES["calls"].splitlines()) <= 15


def test_a_signal_of_numbers_is_credit_within_its_own_bounds(build: Build):
    credit = build(rule("[3, 0.5, -7, 1, 1]")).assign_credit(inputs()).signal.credit
    assert credit.weight.tolist() == [3, 0.5, 1, 1, 1]  # the third token is not the policy's
    assert (credit.advantage, credit.cap, credit.floor) == (0.5, 3, 0.5)


def test_ones_are_grpo_and_an_empty_response_has_no_weight(build: Build):
    ones = build(rule("np.ones(len(inputs.rollout.response))"))
    assert ones.needs is None
    assert not ones.needs_calibration
    assert ones.assign_credit(inputs()).signal.token_advantage.tolist() == [0.5] * 5
    assert ones.assign_credit(inputs("")).signal.token_advantage.tolist() == []


SIGNALS = [
    (
        "[1, 1]",
        "rollout t/0: expected a finite weight above 0 for each of the 5 tokens of its response, or a Signal, got ",
    ),
    ("[1, 1]", "got an array of shape (2,)"),
    ("np.ones((5, 2))", "got an array of shape (5, 2)"),
    ("2.0", "got an array of shape ()"),
    ("[1, -1, 1, 1, 1]", "got -1 at token 1"),
    ("[1, 1, 1, 0, 1]", "got 0 at token 3"),
    ("[1, 1, 1, 1, np.nan]", "got nan at token 4"),
    ("[1, 1, 1, 1, np.inf]", "got inf at token 4"),
    ("None", "got an array of shape ()"),
    ("'heavy'", "got str"),
    ("['a'] * 5", "got list"),
    ("inputs.rolout", "AttributeError: 'CreditInputs' object has no attribute 'rolout'"),
    ("Signal(Credit(1.0, np.ones(4, np.float32)))", "got a Signal for 4 tokens"),
    ("Signal(Credit(1.0, np.ones(5)))", "RecordError: credit: weight must be a float32 numpy array"),
    ("Signal(Credit(1.0, one), imitate=Imitation(Teacher(), 1.0, one))", "would not be executed; name it in needs, as"),
]


@pytest.mark.parametrize(("returned", "words"), SIGNALS)
def test_a_signal_that_does_not_fit_names_class_and_rollout(build: Build, returned: str, words: str):
    imports = "from sgcd.credit_records import *\none = np.ones(5, np.float32)\n"
    with pytest.raises(SgcdError) as refusal:
        build(imports + rule(returned)).assign_credit(inputs())
    message = str(refusal.value)
    assert words in message
    assert re.match(r"method\.class: rule_\d+:Rule\.signal: rollout t/0: ", message)
    assert "\n" not in message


NEEDS = "from sgcd.credit.methods import Needs\nfrom sgcd.credit_records import Teacher\n"
CLASS_FAULTS = [
    ("", "has no 'Rule'; expected module:name"),
    ("class Rul:\n    pass\n", "has no 'Rule'; did you mean Rul?"),
    ("import nowhere\n", "cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
    ("Rule = 3\n", ":Rule is not a class; expected module:Class"),
    ("class Rule:\n    pass\n", ":Rule has no signal(); expected signal(self, inputs), which returns"),
    ("class Rule:\n    signal = 3\n", ":Rule has no signal()"),
    (rule("1") + "    def __init__(self, size): ...\n", "cannot be made without arguments (missing a required"),
    (rule("1") + "    needs = 3\n", ":Rule.needs must be a Needs of sgcd.credit.methods, or None, got 3"),
    (
        NEEDS + rule("1") + "    needs = Needs(5, 'jsd', imitated=Teacher(model='initial'))\n",
        "which is not among its teachers; add it",
    ),
]


@pytest.mark.parametrize(("source", "words"), CLASS_FAULTS)
def test_a_class_that_is_no_rule_is_refused_in_one_line(build: Build, source: str, words: str):
    with pytest.raises(SgcdError) as refusal:
        build(source)
    message = str(refusal.value)
    assert message.startswith("method.class: ")
    assert words in message
    assert "\n" not in message


def test_what_prepare_raises_names_the_class(build: Build):
    faulty = build(rule("1") + "    def prepare(self, step):\n        raise LookupError('no step')\n")
    with pytest.raises(SgcdError, match=r"^method\.class: rule_\d+:Rule\.prepare: LookupError: no step$"):
        faulty.calibrate([inputs()])


def test_a_rule_keeps_its_state(build: Build):
    source = rule("1") + "    def state_dict(self):\n        return {'seen': 3}\n"
    source += "    def load_state_dict(self, state):\n        self.seen = state['seen']\n"
    method = build(source)
    method.load_state_dict(method.state_dict())
    assert method._rule.seen == 3
    plain = build(rule("1"))
    plain.load_state_dict(plain.state_dict())
    assert plain.state_dict() == {}


def test_the_step_s_largest_divergences_are_found(build: Build):
    surprise = build(RULES["surprise"].replace("Surprise", "Rule"))
    divergence = np.array([0.1, 0.2, 9, 0.3, 0.4], np.float32)
    zero = np.zeros(5, np.float32)
    first = inputs()
    scored = CreditInputs(first.rollout, 1.0, {Teacher(): Features(divergence, zero, zero)}, None, first.group)
    assert surprise.needs_calibration
    surprise.calibrate([scored, first])
    assert surprise.assign_credit(scored).signal.credit.weight.tolist() == [1, 1, 1, 1, 2]
    assert surprise.assign_credit(first).signal.credit.weight.tolist() == [1] * 5


@pytest.fixture
def rules_at_desk(at_desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The smallest run's folder with the page's rules in it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    # siblings at the desk differ in words alone, which the writer for any environment does not name
    monkeypatch.setattr(sgcd.assemble, "BuiltInWriter", LastWords)
    for module, source in RULES.items():
        (at_desk / f"{module}.py").write_text(source)
    yield at_desk
    for module in RULES:
        sys.modules.pop(module, None)


@pytest.mark.parametrize("module", RULES)
@pytest.mark.usefixtures("rules_at_desk")
def test_each_rule_of_the_page_trains(module: str):
    method = f'method={{name: own, class: "{module}:{CLASSES[module]}"}}'
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", "evaluation.trials=0", method]) == 0
    records = RunFolder.open(Path("A")).read_credit(1)
    weights = np.concatenate([record.credit.weight for record in records.values()])
    assert set(weights.tolist()) <= {1.0, 2.0}
    assert (weights == 2).any() or module == "only_here"  # the tiny policy makes hardly a call
    assert json.loads(Path("A/metrics.jsonl").read_text())["skipped"] == ""


@pytest.mark.usefixtures("at_desk")
def test_a_faulty_signal_ends_a_run_with_one_line(capsys: pytest.CaptureFixture[str]):
    Path("faulty.py").write_text(rule("[1.0]"))
    assert main(["train", "recipe.yaml", "--run", "A", 'method={name: own, class: "faulty:Rule"}']) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("sgcd: method.class: faulty:Rule.signal: rollout train-")
    assert Path("A/rollouts/0001.jsonl").exists()
