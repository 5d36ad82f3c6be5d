"""Which literals a group of siblings has: what was declared, what completed the task, and what looks like a secret."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from sgcd.chat import Chat
from sgcd.contrast.fold import plain
from sgcd.contrast.mask import SHORTEST, Literals
from sgcd.contrast.views import deepest
from sgcd.records import Flags, Rollout, Siblings

ANSWER_WORDS = 3
"""A final answer of so few words is a literal as a whole; of a longer one, the words with a digit are."""

_TELLTALE = re.compile(
    r"password|passwd|passphrase|passcode|token|secret|api_?key|private_?key|card|cvv|cvc|credential"
    r"|account_?(?:number|no|id)|verification_?code|(?<![a-z])(?:pin|otp|ssn|iban)(?![a-z])",
    re.IGNORECASE,
)
_NAMED = rf"(?i:(?:{_TELLTALE.pattern})\w{{0,20}}"
_BASE64 = "[A-Za-z0-9+/]"
_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("token", re.compile(r"\bbearer\s+([\w.~+/-]{8,}=*)", re.IGNORECASE)),
    ("token", re.compile(r"\b(eyJ[\w-]+\.[\w-]+(?:\.[\w-]+)?)")),
    (
        "token",
        re.compile(r"(?<![\w-])((?:sk|pk|rk)[-_][\w-]{16,}|gh[opsu]_\w{20,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16})"),
    ),
    ("secret", re.compile(r"-----BEGIN [A-Z ]+-----\s*([A-Za-z0-9+/=\s]{16,}?)\s*-----END")),
    ("number", re.compile(r"(?<!\w)([A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)(?!\w)")),
    ("number", re.compile(r"(?<!\d)(\d{13,19}|\d{4}(?:[ -]\d{3,6}){2,4})(?!\d)")),
    ("secret", re.compile(rf"{_NAMED}[\"']?\s*[=:]\s*)[\"']([^\"'\n]+)[\"']")),
    ("secret", re.compile(rf"{_NAMED}=)([^\s\"',;)\]}}]+)")),
    ("secret", re.compile(rf"{_NAMED}\s*:\s*)(?=[^\s\d]{{0,40}}\d)([^\s\"',;)\]}}]+)")),
    ("code", re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])([0-9a-f]{20,})\b", re.IGNORECASE)),
    (
        "code",
        re.compile(
            rf"(?<![\w+/])(?={_BASE64}*\d)(?={_BASE64}*[a-z])(?={_BASE64}*[A-Z])({_BASE64}{{20,}}={{0,2}})(?![\w+/])"
        ),
    ),
)


def literals_of(siblings: Siblings, chat: Chat) -> Literals:
    """Everything that no reference of these siblings may carry; nothing has been written yet (method.md 6(g), 1 to 3).

    What any sibling passed to the call that ended it, or gave as its final answer, is a literal for all of them.
    """
    played = siblings.rollouts
    public = set(_public([tool for rollout in played for tool in rollout.tools]))
    told = [
        (value, rollout.private_kinds.get(value, ""))
        for rollout in (*played, *siblings.broken)
        for value in rollout.private
    ]
    answers = [value for rollout in played for value in (*completing(rollout), *_answer(rollout, chat))]
    texts = dict.fromkeys(str(message.get("content", "")) for rollout in played for message in rollout.messages)
    arguments = [call.arguments for rollout in played for call in rollout.calls]
    named = [value for given in arguments for name, value in _named(given) if _TELLTALE.search(name)]
    found = Literals({})
    for kind in sorted({kind for _, kind in told}, reverse=True):
        found = found.joined(Literals.of([value for value, its in told if its == kind], kind))
    found = found.joined(Literals.of([value for value in answers if value not in public], shortest=SHORTEST))
    found = found.joined(Literals.of(named, "secret", SHORTEST))
    return found.joined(shapes("\n".join(texts)))


def shapes(text: str) -> Literals:
    """What looks like a secret: bearer tokens, 13 to 19 digits, values of password=, long runs of hex or base64.

    Looked for in every reading of the text: full-width digits are digits, and what was escaped is read.

    >>> shapes("login(user='mia', password='hunter2')").placeholders
    {'hunter2': 'hidden_secret'}
    """
    found = Literals({})
    for reading in dict.fromkeys([text, *(plain(said) for said in deepest(text))]):
        for kind, shape in _SHAPES:
            hits = [match[1] for match in shape.finditer(reading)]
            if kind == "number":
                bare = [(hit, re.sub(r"\W", "", hit)) for hit in hits]
                hits = [form for both in bare if both[1][0].isalpha() or 13 <= len(both[1]) <= 19 for form in both]
            found = found.joined(Literals.of(hits, kind, SHORTEST))
    return found


def completing(rollout: Rollout) -> list[str]:
    """Values that were passed to the calls that ended the rollout; none where words ended it."""
    if rollout.ending != "ended" or not rollout.turns:
        return []
    values = [value for call in rollout.turns[-1].calls for _, value in _named(call.arguments)]
    return list(dict.fromkeys([*values, *(word for value in values for word in _digits(value))]))


def creditable(rollout: Rollout, literals: Literals, chat: Chat) -> Flags:
    """False on every token of the response that overlaps an occurrence of a literal in its text, True elsewhere.

    Values too short to be literals count where they completed the task, and nowhere else.
    """
    text, spans = chat.spell(rollout.response)
    found = [(one.start, one.stop) for one in literals.find(text)]
    brief = Literals.of([value for value in completing(rollout) if len(value) < SHORTEST])
    if brief.placeholders:
        start, stop = int(spans[rollout.turns[-1].start, 0]), int(spans[rollout.turns[-1].stop - 1, 1])
        found += [(start + one.start, start + one.stop) for one in brief.find(text[start:stop])]
    flags = np.ones(len(rollout.response), np.bool_)
    for start, stop in found:
        first = int(np.searchsorted(spans[:, 1], start, side="right"))
        last = int(np.searchsorted(spans[:, 0], stop, side="left"))
        flags[first:last] = False
    return flags


def _answer(rollout: Rollout, chat: Chat) -> list[str]:
    """What is literal in the last words of a rollout that they ended."""
    if rollout.ending != "answered" or not rollout.turns:
        return []
    last = rollout.turns[-1]
    text = chat.read(rollout.response[last.start : last.stop])[0].text.strip()
    return [text] if len(text.split()) <= ANSWER_WORDS else _digits(text)


def _digits(text: str) -> list[str]:
    return [word for word in (word.strip(".,;:!?()[]{}") for word in text.split()) if re.search(r"\d", word)]


def _named(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text and number inside plain JSON, with the name it was given under."""
    if isinstance(value, Mapping):
        for key, inner in cast(Mapping[str, Any], value).items():
            yield from _named(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in cast(Sequence[Any], value):
            yield from _named(inner, name)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield name, str(value)


def _public(schema: Any) -> Iterator[str]:
    """Values that tools offer to everyone, by listing what an argument may be."""
    if isinstance(schema, Mapping):
        inside = cast(Mapping[str, Any], schema)
        yield from (value for _, value in _named(inside.get("enum", ())))
        for inner in inside.values():
            yield from _public(inner)
    elif isinstance(schema, list | tuple):
        for inner in cast(Iterable[Any], schema):
            yield from _public(inner)
