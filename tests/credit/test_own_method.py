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

import sgcd.build_tasks
from helpers.group import LastWords
from helpers.training_runs import group
from sgcd.cli import main
from sgcd.credit.methods import CreditInputs, build_method
from sgcd.credit.settings import OwnMethodSettings
from sgcd.credit_records import OWN_REFERENCE, Features
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
    credit = build(rule("[3, 0.5, -7, 1, 1]")).assign_credit(inputs()).credit
    assert credit.weight.tolist() == [3, 0.5, 1, 1, 1]  # the third token is not the policy's
    assert (credit.advantage, credit.cap, credit.floor) == (0.5, 3, 0.5)


def test_ones_are_grpo_and_an_empty_response_has_no_weight(build: Build):
    ones = build(rule("np.ones(len(inputs.rollout.response))"))
    assert ones.needs is None
    assert not ones.needs_whole_step
    assert ones.assign_credit(inputs()).token_advantage.tolist() == [0.5] * 5
    assert ones.assign_credit(inputs("")).token_advantage.tolist() == []


SIGNALS = [
    (
        "[1, 1]",
        "rollout t/0: expected a finite weight above 0 for each of the 5 tokens of its response, or a Signal, got ",
    ),
    ("[1, 1]", "got an array of shape (2,)"),
    ("np.ones((5, 2))", "got an array of shape (5, 2)"),
    ("2.0", "got 2.0"),
    ("[1, -1, 1, 1, 1]", "got -1 at token 1"),
    ("[1, 1, 1, 0, 1]", "got 0 at token 3"),
    ("[1, 1, 1, 1, np.nan]", "got nan at token 4"),
    ("[1, 1, 1, 1, np.inf]", "got inf at token 4"),
    ("None", "got None"),
    ("[1, 1, 1, 1, 1e300]", "got inf at token 4"),
    ("'heavy'", "got str"),
    ("['1.0'] * 5", "got list"),
    ("np.ones(5) * 1j", "got ndarray"),
    ("torch.ones(5, requires_grad=True)", "got Tensor (RuntimeError: Can't call numpy() on Tensor that requires grad."),
    ("inputs.rolout", "AttributeError: 'CreditInputs' object has no attribute 'rolout'"),
    ("Signal(Credit(1.0, np.ones(4, np.float32)))", "got a Signal for 4 tokens"),
    ("Signal(Credit(1.0, np.ones(5)))", "RecordError: credit: weight must be a float32 numpy array"),
    ("Signal(Credit(1.0, np.ones((5, 1), np.float32)))", "credit: weight must have 5 entries, one for each token"),
    ("Signal(Credit(1.0, one), pull=np.ones((5, 1)))", "signal: pull must have 5 entries, one for each token of"),
    ("Signal(Credit(1.0, one), pull=[1.0] * 5)", "signal: pull must be a numpy array of numbers, got list"),
    (
        "Signal(Credit(1.0, one), imitate=Imitation(OWN_REFERENCE, 1.0, one, 'kl'))",
        "divergence must be one of reverse_kl,",
    ),
    (
        "Signal(Credit(1.0, one), imitate=Imitation(OWN_REFERENCE, 1.0, one))",
        "would not be executed; name it in needs, as",
    ),
]


@pytest.mark.parametrize(("returned", "words"), SIGNALS)
def test_a_signal_that_does_not_fit_names_class_and_rollout(build: Build, returned: str, words: str):
    imports = "import torch\nfrom sgcd.credit_records import *\none = np.ones(5, np.float32)\n"
    with pytest.raises(SgcdError) as refusal:
        build(imports + rule(returned)).assign_credit(inputs())
    message = str(refusal.value)
    assert words in message
    assert re.match(r"method\.class: rule_\d+:Rule\.signal: rollout t/0: ", message)
    assert "\n" not in message


def needing(arguments: str) -> str:
    imports = "from sgcd.credit.methods import Needs\nfrom sgcd.credit_records import OWN_REFERENCE, Teacher\n"
    return f"{imports}{rule('1')}    needs = Needs({arguments})\n"


CLASS_FAULTS = [
    ("", "has no 'Rule'; expected module:name"),
    ("class Rul:\n    pass\n", "has no 'Rule'; did you mean Rul?"),
    ("import nowhere\n", "cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
    ("Rule = 3\n", ":Rule is not a class; expected module:Class"),
    ("class Rule:\n    pass\n", ":Rule has no signal(); expected signal(self, inputs), which returns"),
    ("class Rule:\n    signal = 3\n", ":Rule has no signal()"),
    ("class Rule:\n    async def signal(self, inputs): ...\n", "is no plain method; expected signal(self, inputs)"),
    ("class Rule:\n    def signal(self): ...\n", ":Rule.signal does not fit (too many positional arguments); expected"),
    (rule("1") + "    prepare = 3\n", ":Rule.prepare is no plain method; expected prepare(self, step)"),
    (rule("1") + "    def state_dict(self): ...\n", ":Rule has only one of state_dict(self) and load_state_dict("),
    (rule("1") + "    def __init__(self, size): ...\n", "cannot be made without arguments (missing a required"),
    (rule("1") + "    needs = 3\n", ":Rule.needs must be a Needs of sgcd.credit.methods, or None, got 3"),
    (needing("0, 'jsd'"), ":Rule.needs: k must be a whole number, at least 1, got 0"),
    (needing("5, 'kl'"), ":Rule.needs: divergence must be one of reverse_kl, forward_kl, jsd, got 'kl'"),
    (
        needing("5, 'jsd', compare_with='me'"),
        ":Rule.needs: compare_with must be one of student, swapped, next_reference, got 'me'",
    ),
    (needing("5, 'jsd', support='me'"), ":Rule.needs: support must be one of teacher, student, got 'me'"),
    (needing("5, 'jsd', OWN_REFERENCE"), ":Rule.needs: teachers must be a tuple of at least one Teacher, such as"),
    (needing("5, 'jsd', ('initial',)"), ":Rule.needs: teachers must be of sgcd.credit_records.Teacher, got 'initial'"),
    (needing("5, 'jsd', (Teacher('hint'),)"), ":Rule.needs: a teacher's context must be one of reference, swapped,"),
    (needing("5, 'jsd', (Teacher('none'),)"), ":Rule.needs: a teacher with context none and model current is the"),
    (needing("5, 'jsd', imitated=Teacher(model='initial')"), "which is not among its teachers; add it"),
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
        faulty.observe_step([inputs()])


def keeping(state: str) -> str:
    source = rule("1") + f"    def state_dict(self):\n        return {state}\n"
    return source + "    def load_state_dict(self, state):\n        self.seen = state['seen']\n"


def test_a_rule_keeps_its_state(build: Build):
    method = build(keeping("{'seen': 3}"))
    method.load_state_dict({})  # a run that begins
    method.load_state_dict(method.state_dict())
    assert method._rule.seen == 3
    with pytest.raises(SgcdError, match=r"^method\.class: rule_\d+:Rule\.load_state_dict: KeyError: 'seen'$"):
        method.load_state_dict({"else": 3})
    plain = build(rule("1"))
    plain.load_state_dict(plain.state_dict())
    assert plain.state_dict() == {}


@pytest.mark.parametrize("state", ["None", "[3]", "{3: 3}", "{'a': (1, 2)}", "{'a': np.float32(3)}", "{'a': np.nan}"])
def test_a_state_that_a_checkpoint_could_not_keep_is_refused(build: Build, state: str):
    with pytest.raises(SgcdError, match=r":Rule\.state_dict: expected a mapping from words to plain JSON, such as"):
        build(keeping(state)).state_dict()


def test_the_step_s_largest_divergences_are_found(build: Build):
    surprise = build(RULES["surprise"].replace("Surprise", "Rule"))
    divergence = np.array([0.1, 0.2, 9, 0.3, 0.4], np.float32)
    zero = np.zeros(5, np.float32)
    first = inputs()
    scored = CreditInputs(first.rollout, 1.0, {OWN_REFERENCE: Features(divergence, zero, zero)}, None, first.group)
    assert surprise.needs_whole_step
    surprise.observe_step([scored, first])
    assert surprise.assign_credit(scored).credit.weight.tolist() == [1, 1, 1, 1, 2]
    assert surprise.assign_credit(first).credit.weight.tolist() == [1] * 5


@pytest.fixture
def rules_at_desk(at_desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The smallest run's folder with the page's rules in it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    # siblings at the desk differ in words alone, which the writer for any environment does not name
    monkeypatch.setattr(sgcd.build_tasks, "BuiltInWriter", LastWords)
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


@pytest.mark.slow
@pytest.mark.usefixtures("at_desk")
def test_a_rule_with_a_state_is_resumed(capsys: pytest.CaptureFixture[str]):
    Path("counting.py").write_text(
        "class Rule:\n    steps = ()\n"
        "    def signal(self, inputs):\n        return [1.0] * len(inputs.rollout.response)\n"
        "    def prepare(self, step):\n        self.steps = [*self.steps, step[0].step]\n"
        "    def state_dict(self):\n        return {'steps': list(self.steps)}\n"
        "    def load_state_dict(self, state):\n        print('steps', state['steps'])\n"
        "        self.steps = state['steps']\n"
    )
    method = 'method={name: own, class: "counting:Rule"}'
    assert main(["train", "recipe.yaml", "--run", "A", "steps=2", method]) == 0
    assert "steps [" not in capsys.readouterr().out
    assert main(["train", "--run", "A", "--resume", "steps=3"]) == 0
    assert "steps [1, 2]" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("rules_at_desk")
def test_a_teacher_that_reads_no_text_is_there_whichever_reference_is_read():
    source = needing("5, 'jsd', (OWN_REFERENCE, Teacher('none', 'initial'))").replace(
        "return 1", "return 1 + inputs.features[Teacher('none', 'initial')].divergence"
    )
    Path("initial.py").write_text(source)
    method = 'method={name: own, class: "initial:Rule"}'
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", "evaluation.trials=0", method]) == 0
    [row] = [json.loads(line) for line in Path("A/metrics.jsonl").read_text().splitlines()]
    assert row["credit"]["reading"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (needing("5, 'kl'"), "unfit_0:Rule.needs: divergence must be one of"),
        ("class Rule:\n    def signal(self): ...\n", "unfit_1:Rule.signal does not fit ("),
        ("class Rule: ...\n", "unfit_2:Rule has no signal(); expected signal(self, inputs), which returns a weight"),
    ],
)
@pytest.mark.usefixtures("at_desk")
def test_check_refuses_a_class_before_anything_is_played(source: str, words: str, capsys: pytest.CaptureFixture[str]):
    module = words.partition(":")[0]
    Path(f"{module}.py").write_text(source)
    assert main(["check", "recipe.yaml", f'method={{name: own, class: "{module}:Rule"}}']) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sgcd: method.class: {words}")


@pytest.mark.usefixtures("at_desk")
def test_a_faulty_signal_ends_a_run_with_one_line(capsys: pytest.CaptureFixture[str]):
    Path("faulty.py").write_text(rule("[1.0]"))
    assert main(["train", "recipe.yaml", "--run", "A", 'method={name: own, class: "faulty:Rule"}']) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("sgcd: method.class: faulty:Rule.signal: rollout train-")
    assert Path("A/rollouts/0001.jsonl").exists()
