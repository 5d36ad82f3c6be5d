"""What a language model answered: parsed, checked, and said in the five parts of a reference."""

import json
import re
from typing import Any, cast

from sgcd.contrast.leakage.chat_marks import find_chat_marks
from sgcd.contrast.leakage.masking import PLACEHOLDER
from sgcd.contrast.writers.built_in import WriterFailed

MAX_TEXTS_PER_PART = 12
"""Texts in a part."""
MAX_TEXT_CHARS = 400
"""Characters of a text."""
_MAX_REFERENCE_CHARS = 8000
"""Characters of a reference."""

PART_LABELS = {
    "checks": "what successful attempts check",
    "branches": "then they do",
    "failures": "where failed attempts go wrong",
    "deviations": "where they part",
    "masked": "keep masked",
}
_TEXT_LIST = {"type": "array", "items": {"type": "string"}}
ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(PART_LABELS, _TEXT_LIST),
    "required": list(PART_LABELS),
    "additionalProperties": False,
}
"""Without limits: not every server knows them."""

_THINKING_BLOCK = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


def render_answer(text: str) -> str:
    """The five-part text of an answer. Raises Unwritten with a reason that quotes nothing of the answer."""
    parts = _parse_parts(text)
    if not any(parts[name] for name in PART_LABELS if name != "masked"):
        raise _malformed_answer("empty", "its first four lists hold nothing")
    lines: list[str] = []
    for name, label in PART_LABELS.items():
        if name == "masked":
            lines.append(f"{label} : {' , '.join(entry.replace(',', ' ') for entry in parts[name]) or PLACEHOLDER} .")
        else:
            lines += [f"{label} : {entry.rstrip(' .')} ." for entry in parts[name] or ["none"]]
    if find_chat_marks("\n".join(lines)):
        raise _malformed_answer("markers", "it holds marks that open or close a turn of a chat")
    if sum(map(len, lines)) > _MAX_REFERENCE_CHARS:
        raise _malformed_answer("huge", f"all texts together have more than {_MAX_REFERENCE_CHARS} characters")
    return "\n".join(lines)


def _parse_parts(text: str) -> dict[str, list[str]]:
    answer = _find_json_object(text)
    parts: dict[str, list[str]] = {}
    for name in PART_LABELS:
        if name not in answer:
            raise _malformed_answer("parts", f"the key {name} is missing")
        entries = answer[name]
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in cast(list[Any], entries)):
            raise _malformed_answer("parts", f"{name} must be a list of texts")
        texts = [" ".join(entry.split()) for entry in cast(list[str], entries)]
        parts[name] = [entry for entry in texts if entry]
        if len(parts[name]) > MAX_TEXTS_PER_PART or any(len(entry) > MAX_TEXT_CHARS for entry in parts[name]):
            raise _malformed_answer(
                "huge", f"{name} must hold at most {MAX_TEXTS_PER_PART} texts of at most {MAX_TEXT_CHARS} characters"
            )
    return parts


def _find_json_object(text: str) -> dict[str, Any]:
    """The first JSON object, after thinking, a fence or a few words."""
    answer_text = _THINKING_BLOCK.sub("", text)
    if not answer_text.strip():
        raise _malformed_answer("empty", "there was no answer")
    start = answer_text.find("{")
    try:
        answer, _ = json.JSONDecoder().raw_decode(answer_text, max(0, start))
    except (ValueError, RecursionError):
        raise _malformed_answer("json", "it is not a JSON object, or not a whole one") from None
    if not isinstance(answer, dict):
        raise _malformed_answer("json", "it is not a JSON object, or not a whole one")
    return cast(dict[str, Any], answer)


def _malformed_answer(kind: str, detail: str) -> WriterFailed:
    return WriterFailed(f"malformed {kind}: {detail}", may_retry=True)
