"""Finds a group's literals: declared values, values that completed the task, and texts with the shape of a secret."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from sgcd.chat import Chat
from sgcd.contrast.leakage.decodings import decode_fully
from sgcd.contrast.leakage.masking import MIN_LITERAL_CHARS, Literals
from sgcd.contrast.leakage.normalize import normalize_nfkc
from sgcd.records import Flags, Group, Rollout

_MAX_LITERAL_ANSWER_WORDS = 3
"""A final answer of at most this many words is a literal. In a longer answer, each word with a digit is one."""

_SENSITIVE_NAME = re.compile(
    r"password|passwd|passphrase|passcode|token|secret|api_?key|private_?key|card|cvv|cvc|credential"
    r"|account_?(?:number|no|id)|verification_?code|(?<![a-z])(?:pin|otp|ssn|iban)(?![a-z])",
    re.IGNORECASE,
)
_SENSITIVE_KEY = rf"(?i:(?:{_SENSITIVE_NAME.pattern})\w{{0,20}}"
_BASE64_CHAR = "[A-Za-z0-9+/]"
_SECRET_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("token", re.compile(r"\bbearer\s+([\w.~+/-]{8,}=*)", re.IGNORECASE)),
    ("token", re.compile(r"\b(eyJ[\w-]+\.[\w-]+(?:\.[\w-]+)?)")),
    (
        "token",
        re.compile(r"(?<![\w-])((?:sk|pk|rk)[-_][\w-]{16,}|gh[opsu]_\w{20,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16})"),
    ),
    ("secret", re.compile(r"-----BEGIN [A-Z ]+-----\s*([A-Za-z0-9+/=\s]{16,}?)\s*-----END")),
    ("number", re.compile(r"(?<!\w)([A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)(?!\w)")),
    ("number", re.compile(r"(?<!\d)(\d{13,19}|\d{4}(?:[ -]\d{3,6}){2,4})(?!\d)")),
    ("secret", re.compile(rf"{_SENSITIVE_KEY}[\"']?\s*[=:]\s*)[\"']([^\"'\n]+)[\"']")),
    ("secret", re.compile(rf"{_SENSITIVE_KEY}=)([^\s\"',;)\]}}]+)")),
    ("secret", re.compile(rf"{_SENSITIVE_KEY}\s*:\s*)(?=[^\s\d]{{0,40}}\d)([^\s\"',;)\]}}]+)")),
    ("code", re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])([0-9a-f]{20,})\b", re.IGNORECASE)),
    (
        "code",
        re.compile(
            rf"(?<![\w+/])(?={_BASE64_CHAR}*\d)(?={_BASE64_CHAR}*[a-z])(?={_BASE64_CHAR}*[A-Z])({_BASE64_CHAR}{{20,}}={{0,2}})(?![\w+/])"
        ),
    ),
)


def find_literals(group: Group, chat: Chat) -> Literals:
    """All literals that the group's reference must not contain.

    A value that one sibling passed to its last call, or gave as its final answer, is a literal for all siblings.
    """
    rollouts = group.rollouts
    tools = [tool for rollout in rollouts for tool in rollout.tools]
    public_values = set(_public_values(tools))
    private_values = [
        (value, rollout.private_kinds.get(value, ""))
        for rollout in (*rollouts, *group.broken)
        for value in rollout.private
    ]
    answer_values = [
        value for rollout in rollouts for value in (*completing_values(rollout), *_answer_literals(rollout, chat))
    ]
    texts = dict.fromkeys(str(message.get("content", "")) for rollout in rollouts for message in rollout.messages)
    all_arguments = [call.arguments for rollout in rollouts for call in rollout.calls]
    sensitive_values = [
        value
        for arguments_of_call in all_arguments
        for name, value in _named_values(arguments_of_call)
        if _SENSITIVE_NAME.search(name)
    ]
    literals = Literals({}, frozenset(_public_names(tools)))
    for kind in sorted({kind for _, kind in private_values}, reverse=True):
        literals = literals.union(
            Literals.from_texts([value for value, value_kind in private_values if value_kind == kind], kind)
        )
    literals = literals.union(
        Literals.from_texts(
            [value for value in answer_values if value not in public_values], min_chars=MIN_LITERAL_CHARS
        )
    )
    literals = literals.union(Literals.from_texts(sensitive_values, "secret", MIN_LITERAL_CHARS))
    return literals.union(find_secret_literals("\n".join(texts)))


def find_secret_literals(text: str) -> Literals:
    """Texts with the shape of a secret: bearer tokens, 13 to 19 digits, values of password=, long hex or base64.

    All decodings of the text are searched, with compatibility forms normalized.

    >>> find_secret_literals("login(user='mia', password='hunter2')").placeholders
    {'hunter2': 'hidden_secret'}
    """
    literals = Literals({})
    for reading in dict.fromkeys([text, *(normalize_nfkc(decoded_text) for decoded_text in decode_fully(text))]):
        for kind, pattern in _SECRET_PATTERNS:
            matches = [match[1] for match in pattern.finditer(reading)]
            if kind == "number":
                matches = [form for match in matches for form in _number_forms(match)]
            literals = literals.union(Literals.from_texts(matches, kind, MIN_LITERAL_CHARS))
    return literals


def _number_forms(number: str) -> list[str]:
    """The number as written and without separators; none when it is neither an IBAN nor 13 to 19 digits long."""
    digits = re.sub(r"\W", "", number)
    return [number, digits] if digits[0].isalpha() or 13 <= len(digits) <= 19 else []


def completing_values(rollout: Rollout) -> list[str]:
    """The argument values of the calls that ended the rollout; none when a final text ended it."""
    if rollout.end_reason != "ended" or not rollout.turns:
        return []
    values = [value for call in rollout.turns[-1].calls for _, value in _named_values(call.arguments)]
    return list(dict.fromkeys([*values, *(word for value in values for word in _words_with_digits(value))]))


def tokens_outside_literals(rollout: Rollout, literals: Literals, chat: Chat) -> Flags:
    """One flag for each token of the response: False when the token overlaps a literal.

    A value too short to be a literal counts only in the turn that completed the task.
    """
    text, spans = chat.decode_with_spans(rollout.response)
    literal_spans = [(match.start, match.stop) for match in literals.find(text)]
    short_literals = Literals.from_texts(
        [value for value in completing_values(rollout) if len(value) < MIN_LITERAL_CHARS]
    )
    if short_literals.placeholders:
        start, stop = int(spans[rollout.turns[-1].start, 0]), int(spans[rollout.turns[-1].stop - 1, 1])
        literal_spans += [(start + match.start, start + match.stop) for match in short_literals.find(text[start:stop])]
    is_creditable = np.ones(len(rollout.response), np.bool_)
    for start, stop in literal_spans:
        first_token = int(np.searchsorted(spans[:, 1], start, side="right"))
        stop_token = int(np.searchsorted(spans[:, 0], stop, side="left"))
        is_creditable[first_token:stop_token] = False
    return is_creditable


def _answer_literals(rollout: Rollout, chat: Chat) -> list[str]:
    """The literals of the final text when it ended the rollout."""
    if rollout.end_reason != "answered" or not rollout.turns:
        return []
    text = chat.visible_text(rollout, rollout.turns[-1]).strip()
    return [text] if len(text.split()) <= _MAX_LITERAL_ANSWER_WORDS else _words_with_digits(text)


def _words_with_digits(text: str) -> list[str]:
    return [word for word in (word.strip(".,;:!?()[]{}") for word in text.split()) if re.search(r"\d", word)]


def _named_values(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each string and number in a JSON value, with the name of its key."""
    if isinstance(value, Mapping):
        for key, inner_value in cast(Mapping[str, Any], value).items():
            yield from _named_values(inner_value, str(key))
    elif isinstance(value, list | tuple):
        for inner_value in cast(Sequence[Any], value):
            yield from _named_values(inner_value, name)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield name, str(value)


def _public_values(schema: Any) -> Iterator[str]:
    """Values in the `enum` lists of tool schemas."""
    if isinstance(schema, Mapping):
        mapping = cast(Mapping[str, Any], schema)
        yield from (value for _, value in _named_values(mapping.get("enum", ())))
        for inner_schema in mapping.values():
            yield from _public_values(inner_schema)
    elif isinstance(schema, list | tuple):
        for inner_schema in cast(Iterable[Any], schema):
            yield from _public_values(inner_schema)


def _public_names(schema: Any) -> Iterator[str]:
    """Names of tools and of their arguments, in lower case."""
    if isinstance(schema, Mapping):
        mapping = cast(Mapping[str, Any], schema)
        if isinstance(name := mapping.get("name"), str):
            yield name.casefold()
        if isinstance(properties := mapping.get("properties"), Mapping):
            yield from (str(name).casefold() for name in cast(Mapping[str, Any], properties))
        for inner_schema in mapping.values():
            yield from _public_names(inner_schema)
    elif isinstance(schema, list | tuple):
        for inner_schema in cast(Iterable[Any], schema):
            yield from _public_names(inner_schema)
