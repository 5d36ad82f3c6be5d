"""sgcd methods and docs/methods.md: the family as its methods declare it; a recipe that names none of them."""

import json
from pathlib import Path
from typing import get_args

import pytest

from sgcd.cli import main
from sgcd.credit.method_table import METHODS_WITHOUT_FORMULA, document_methods, list_methods
from sgcd.credit.settings import MethodSettings

ROOT = Path(__file__).parents[2]


def test_the_page_is_as_the_methods_declare() -> None:
    assert document_methods() == (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    assert len(list_methods()) == len(get_args(get_args(MethodSettings)[0]))


def test_the_command_prints_every_method_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    table = capsys.readouterr().out
    assert main(["methods", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    names = [row["method"] for row in answer["methods"]]
    assert names == [row["method"] for row in list_methods()]
    assert all(f"\n{name} " in table for name in names)
    assert all(name in table for name in METHODS_WITHOUT_FORMULA)


REFUSED = [
    ("{name: entropi}", "did you mean entropy"),
    ("{name: entropy, high: 0.5}", "method.high"),
    ("{name: parting, decay: 0}", "method.decay"),
    ("{name: thinking_mask, weight: 2}", "method.weight"),
    ("{name: opd, context: none}", "method.teacher: the policy as it is, with nothing in its prompt, is the student"),
    ("{name: sdar, context: none}", "name method.teacher: initial, or a method.context such as reference"),
    ("{name: opsd, coefficient: 0}", "method.coefficient: expected a number, above 0, got 0"),
    ("{name: rlsd, clip: 1}", "method.clip: expected a number, above 0 and below 1, got 1"),
    ("{name: random, shares: 0.5}", "did you mean method.share?"),
]


@pytest.mark.parametrize(("method", "words"), REFUSED)
def test_a_wrong_method_is_one_line(method: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "recipes/lab/grpo.yaml"), f"method={method}"]) == 2
    line = capsys.readouterr().err
    assert words in line
    assert line.count("\n") == 1
