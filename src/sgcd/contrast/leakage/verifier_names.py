"""Finds and removes the names that only a verifier uses, with the values beside them."""

import re
from collections.abc import Iterable
from functools import cache

from sgcd.contrast.leakage.masking import PLACEHOLDER
from sgcd.contrast.leakage.matching import build_searchable_texts
from sgcd.contrast.leakage.normalize import normalize_text
from sgcd.records import Rollout

VERIFIER_NAMES = (
    "gold_answer gold_action gold_actions gold_label ground_truth expected_answer expected_actions expected_output "
    "evaluation_criteria evaluator_notes reward_info reward_basis unit_tests test_cases"
).split()
"""Common names of verifier data. The facts of the rollout's own verifier join them."""
_CLOSING_BRACKETS = {"[": "]", "{": "}", "(": ")"}


def collect_verifier_names(rollout: Rollout) -> frozenset[str]:
    """`VERIFIER_NAMES` and the rollout's verifier facts, without facts that are everyday words."""
    facts = rollout.verdict.facts if rollout.verdict else ()
    return frozenset({*VERIFIER_NAMES, *(name for name in facts if re.search(r"[_.]|[a-z][A-Z]", name))})


def find_verifier_name(text: str, names: Iterable[str]) -> str:
    """The first of the names that occurs in any decoding of the text; empty when none does.

    >>> find_verifier_name("the goldActions are", ["gold_actions"])
    'gold_actions'
    """
    sorted_names = tuple(sorted(names))
    first_words = {_split_name(normalize_text(name).text)[0] for name in sorted_names}
    readings = [searchable.text for searchable in build_searchable_texts(text)]
    readings = [reading for reading in readings if any(first_word in reading for first_word in first_words)]
    if not any(_any_name_pattern(sorted_names).search(reading) for reading in readings):
        return ""
    return next(name for name in sorted_names if any(_name_pattern(name).search(reading) for reading in readings))


def remove_verifier_data(text: str, names: Iterable[str]) -> str:
    """The text without the names and their values. A bracketed value ends at its closing bracket.

    >>> remove_verifier_data('{"gold_actions": [{"name": "cancel"}], "cabin": "basic"}', ["gold_actions"])
    '{"hidden", "cabin": "basic"}'
    """
    for name in sorted(names) if find_verifier_name(text, names) else ():
        pattern = re.compile(rf"{_name_pattern(name).pattern}(?:[\"']?\s*[:=]\s*)?", re.IGNORECASE)
        parts, position = list[str](), 0
        for match in pattern.finditer(text):
            if match.start() >= position:
                has_value = match[0].rstrip().endswith((":", "="))
                parts += [text[position : match.start()], PLACEHOLDER]
                position = _value_end(text, match.end()) if has_value else match.end()
                if has_value and match.start() and text[match.start() - 1] == '"':
                    parts.append('"')
        text = "".join([*parts, text[position:]])
    return PLACEHOLDER if find_verifier_name(text, names) else text


@cache
def _any_name_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(_name_pattern(name).pattern for name in names) or r"(?!)", re.IGNORECASE)


def _name_pattern(name: str) -> re.Pattern[str]:
    spelling = "[_.-]?".join(re.escape(word) for word in _split_name(normalize_text(name).text))
    return re.compile(rf"(?<![^\W_]){spelling}(?![^\W_])", re.IGNORECASE)


def _split_name(name: str) -> list[str]:
    return [word for word in re.split(r"[_.]", name) if word] or [name]


def _value_end(text: str, start: int) -> int:
    """The end of the value that begins at `start`."""
    first = text[start : start + 1]
    if first in _CLOSING_BRACKETS:
        depth = 0
        for index in range(start, len(text)):
            depth += (text[index] == first) - (text[index] == _CLOSING_BRACKETS[first])
            if not depth:
                return index + 1
        return len(text)
    if first and first in "\"'":
        close = re.compile(rf"(?<!\\){first}").search(text, start + 1)
        return close.end() if close else len(text)
    stop = re.compile(r"[,;}\])\n]").search(text, start)
    return stop.start() if stop else len(text)
