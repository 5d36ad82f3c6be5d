"""The language model writer: calls an endpoint, checks its JSON answer and renders its parts as a reference."""

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from sgcd.contrast.leakage.chat_marks import find_chat_marks
from sgcd.contrast.leakage.masking import PLACEHOLDER
from sgcd.contrast.trace import Trace
from sgcd.contrast.writers import WriterFailed
from sgcd.contrast.writers.llm_prompt import (
    ANSWER_SCHEMA,
    MAX_TEXT_CHARS,
    MAX_TEXTS_PER_PART,
    PART_LABELS,
    build_writer_messages,
)
from sgcd.endpoint.client import Endpoint
from sgcd.endpoint.usage import RequestFailed

_MAX_REFERENCE_CHARS = 8000
_THINKING_BLOCK = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class LanguageModelWriter:
    """Sends masked traces to an endpoint and renders the parts of the answer as a reference.

    A fault that is named becomes likelier. So failures are named only with `names_failures`: where the divergence is
    taken between two teachers that both read it.
    """

    reads_steps = False

    def __init__(self, endpoint: Endpoint, names_failures: bool = False) -> None:
        self.endpoint = endpoint
        self.names_failures = names_failures
        self.name = endpoint.settings.model

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        try:
            answer = await self.endpoint.complete(build_writer_messages(traces, refused), ANSWER_SCHEMA)
        except RequestFailed as failure:
            if failure.kind == "huge":
                raise WriterFailed("malformed huge: the answer was far too long", may_retry=True) from None
            raise WriterFailed(f"unanswered {failure.kind}: {failure.detail}") from None
        try:
            return render_answer(answer.text, names_failures=self.names_failures)
        except WriterFailed:
            if not answer.is_complete:
                raise WriterFailed(
                    "malformed length: the answer was cut before its end; be brief", may_retry=True
                ) from None
            raise


def render_answer(text: str, *, names_failures: bool = False) -> str:
    """The parts of an answer that hold something, as lines.

    Raises `WriterFailed` with a cause that quotes nothing of the answer.
    """
    parts = _parse_parts(text)
    labels = {name: label for name, label in PART_LABELS.items() if name != "failures" or names_failures}
    lines = [
        f"{label} : {entry.rstrip(' .')} ."
        for name, label in labels.items()
        for entry in parts[name]
        if name != "masked"
    ]
    if not lines:
        raise _malformed_answer("empty", f"the lists {', '.join([*labels][:-1])} hold nothing")
    masked = " , ".join(entry.replace(",", " ") for entry in parts["masked"])
    lines.append(f"{labels['masked']} : {masked or PLACEHOLDER} .")
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
