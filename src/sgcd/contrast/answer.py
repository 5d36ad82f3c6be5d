"""What a language model answered: parsed, checked, and said in the five parts of a reference."""

import json
import re
from typing import Any, cast

from sgcd.contrast.marks import marks
from sgcd.contrast.mask import PLACEHOLDER
from sgcd.contrast.write import Unwritten

MOST = 12
"""Texts in a part."""
LONGEST = 400
"""Characters of a text."""
WHOLE = 8000
"""Characters of a reference."""

PARTS = {
    "checks": "what successful attempts check",
    "branches": "then they do",
    "failures": "where failed attempts go wrong",
    "deviations": "where they part",
    "masked": "keep masked",
}
_TEXTS = {"type": "array", "items": {"type": "string"}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(PARTS, _TEXTS),
    "required": list(PARTS),
    "additionalProperties": False,
}
"""Without limits: not every server knows them."""

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


def rendered(text: str) -> str:
    """The five-part text of an answer. Raises Unwritten with a reason that quotes nothing of the answer."""
    parts = _parts(text)
    if not any(parts[name] for name in PARTS if name != "masked"):
        raise _malformed("empty", "its first four lists hold nothing")
    lines: list[str] = []
    for name, label in PARTS.items():
        if name == "masked":
            lines.append(f"{label} : {' , '.join(item.replace(',', ' ') for item in parts[name]) or PLACEHOLDER} .")
        else:
            lines += [f"{label} : {item.rstrip(' .')} ." for item in parts[name] or ["none"]]
    if marks("\n".join(lines)):
        raise _malformed("markers", "it holds marks that open or close a turn of a chat")
    if sum(map(len, lines)) > WHOLE:
        raise _malformed("huge", f"all texts together have more than {WHOLE} characters")
    return "\n".join(lines)


def _parts(text: str) -> dict[str, list[str]]:
    found = _object(text)
    parts: dict[str, list[str]] = {}
    for name in PARTS:
        if name not in found:
            raise _malformed("parts", f"the key {name} is missing")
        items = found[name]
        if not isinstance(items, list) or not all(isinstance(item, str) for item in cast(list[Any], items)):
            raise _malformed("parts", f"{name} must be a list of texts")
        texts = [" ".join(item.split()) for item in cast(list[str], items)]
        parts[name] = [item for item in texts if item]
        if len(parts[name]) > MOST or any(len(item) > LONGEST for item in parts[name]):
            raise _malformed("huge", f"{name} must hold at most {MOST} texts of at most {LONGEST} characters")
    return parts


def _object(text: str) -> dict[str, Any]:
    """The first JSON object, after thinking, a fence or a few words."""
    said = _THINKING.sub("", text)
    if not said.strip():
        raise _malformed("empty", "there was no answer")
    start = said.find("{")
    try:
        found, _ = json.JSONDecoder().raw_decode(said, max(0, start))
    except (ValueError, RecursionError):
        raise _malformed("json", "it is not a JSON object, or not a whole one") from None
    if not isinstance(found, dict):
        raise _malformed("json", "it is not a JSON object, or not a whole one")
    return cast(dict[str, Any], found)


def _malformed(kind: str, detail: str) -> Unwritten:
    return Unwritten(f"malformed {kind}: {detail}", again=True)
