"""What only a verifier knows: the names it goes by, and what stands beside them."""

import re
from collections.abc import Iterable
from functools import cache

from sgcd.contrast.fold import fold
from sgcd.contrast.mask import PLACEHOLDER
from sgcd.contrast.search import streams
from sgcd.records import Rollout

EVALUATOR = (
    "gold_answer gold_action gold_actions gold_label ground_truth expected_answer expected_actions expected_output "
    "evaluation_criteria evaluator_notes reward_info reward_basis unit_tests test_cases"
).split()
"""Names of what only a verifier knows, wherever it comes from; those of the rollouts' own verifiers join them."""
CLOSING = {"[": "]", "{": "}", "(": ")"}


def names(rollout: Rollout) -> frozenset[str]:
    """Those above, and the rollout's own verifier's, where they are names and not everyday words."""
    facts = rollout.verdict.facts if rollout.verdict else ()
    return frozenset({*EVALUATOR, *(name for name in facts if re.search(r"[_.]|[a-z][A-Z]", name))})


def named(text: str, known: Iterable[str]) -> str:
    """The first of the names that a text speaks of, in any of its readings; empty when it speaks of none.

    >>> named("the goldActions are", ["gold_actions"])
    'gold_actions'
    """
    wanted = tuple(sorted(known))
    firsts = {_words(fold(name).text)[0] for name in wanted}
    readings = [stream.text for stream in streams(text)]
    readings = [reading for reading in readings if any(first in reading for first in firsts)]
    if not any(_either(wanted).search(reading) for reading in readings):
        return ""
    return next(name for name in wanted if any(_pattern(name).search(reading) for reading in readings))


def without(text: str, known: Iterable[str]) -> str:
    """The text without those names and what they are given as: a value, or all up to the bracket that closes it.

    >>> without('{"gold_actions": [{"name": "cancel"}], "cabin": "basic"}', ["gold_actions"])
    '{"hidden", "cabin": "basic"}'
    """
    for name in sorted(known) if named(text, known) else ():
        pattern = re.compile(rf"{_pattern(name).pattern}(?:[\"']?\s*[:=]\s*)?", re.IGNORECASE)
        parts, at = list[str](), 0
        for match in pattern.finditer(text):
            if match.start() >= at:
                given = match[0].rstrip().endswith((":", "="))
                parts += [text[at : match.start()], PLACEHOLDER]
                at = _end(text, match.end()) if given else match.end()
                parts += ['"'] if given and match.start() and text[match.start() - 1] == '"' else []
        text = "".join([*parts, text[at:]])
    return PLACEHOLDER if named(text, known) else text


@cache
def _either(known: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(_pattern(name).pattern for name in known) or r"(?!)", re.IGNORECASE)


def _pattern(name: str) -> re.Pattern[str]:
    spelt = "[_.-]?".join(re.escape(word) for word in _words(fold(name).text))
    return re.compile(rf"(?<![^\W_]){spelt}(?![^\W_])", re.IGNORECASE)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[_.]", name) if word] or [name]


def _end(text: str, start: int) -> int:
    """Where the value that begins at `start` is over."""
    first = text[start : start + 1]
    if first in CLOSING:
        depth = 0
        for at in range(start, len(text)):
            depth += (text[at] == first) - (text[at] == CLOSING[first])
            if not depth:
                return at + 1
        return len(text)
    if first and first in "\"'":
        close = re.compile(rf"(?<!\\){first}").search(text, start + 1)
        return close.end() if close else len(text)
    stop = re.compile(r"[,;}\])\n]").search(text, start)
    return stop.start() if stop else len(text)
