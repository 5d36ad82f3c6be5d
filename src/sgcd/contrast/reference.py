"""From siblings to a reference, or to the cause why there is none; nothing that a writer does gets past here."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sgcd.chat import Chat
from sgcd.contrast.choose import ChosenTraces, choose_traces
from sgcd.contrast.insert import FittedReference, fit_reference
from sgcd.contrast.leakage import verifier_names as evaluator
from sgcd.contrast.leakage.chat_marks import break_chat_marks, find_chat_marks
from sgcd.contrast.leakage.literals import find_literals, find_secret_literals
from sgcd.contrast.leakage.masking import MIN_LITERAL_CHARS, PLACEHOLDER_PATTERN, Literals
from sgcd.contrast.leakage.normalize import QUOTES
from sgcd.contrast.trace import build_trace
from sgcd.contrast.writers.built_in import Writer, WriterFailed
from sgcd.records import Group, Reference
from sgcd.text import describe_exception

_MAX_RETRIES = 2
MAX_REPLACED_LITERALS = 5
"""So many literals in what a writer wrote are slips and are replaced; one more, and it is not shown to anyone."""
_MASKED_PART = re.compile(r"^\W*keep masked\b[^:]*:(.*)$", re.IGNORECASE | re.MULTILINE)
"""The template's fifth part: literals that the writer saw and that are to stay out of credit."""


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """What came of a group: a reference or a cause, and in either case the literals that credit keeps off."""

    task: str
    reference: Reference | None
    cause: str
    """Empty where there is a reference. Its first words, up to a colon, are what is counted: not mixed, too long,
    writer raised, writer gave nothing, leak, chat marks."""
    literals: Literals
    selection: str = ""
    """How the writer's siblings were chosen."""
    siblings_read: tuple[int, ...] = ()
    """Which the writer read."""
    num_replaced: int = 0
    """Literals that the writer let slip."""
    refused: tuple[str, ...] = ()
    """Why answers of the writer were not taken, each by its cause."""

    def to_json(self) -> dict[str, Any]:
        """A line of the run's folder. Literals that were there before anything was written stay out of it."""
        text = {"text": self.reference.text, "hash": self.reference.hash} if self.reference else {}
        return {
            "task": self.task,
            **text,
            "writer": self.reference.writer if self.reference else None,
            "literals": list(self.reference.literals) if self.reference else [],
            "cause": self.cause,
            "how": self.selection,
            "siblings": list(self.siblings_read),
            "replaced": self.num_replaced,
            "refused": list(self.refused),
        }


@dataclass(frozen=True, slots=True)
class ReferenceBuilder:
    """What turns siblings into references: a writer, how much it reads, and where its words go."""

    writer: Writer
    chat: Chat
    budget: int
    min_tokens: int

    async def build(self, group: Group, only_siblings: Collection[int] | None = None) -> ReferenceResult:
        return await build_reference(group, self.chat, self.writer, self.budget, only_siblings)

    def fit_to_window(self, reference: Reference, max_tokens: int) -> FittedReference | None:
        """The reference as ids, for a rollout that leaves `room` of them in the model's window."""
        return fit_reference(self.chat, reference.text, max_tokens, self.min_tokens)


@dataclass(frozen=True, slots=True)
class ScreenedText:
    """What a writer wrote, without literals; what it listed to keep masked; or why nobody may see it."""

    text: str
    listed_literals: tuple[str, ...] = ()
    num_replaced: int = 0
    refusal: str = ""


async def build_reference(
    group: Group, chat: Chat, writer: Writer, budget: int, only_siblings: Collection[int] | None = None
) -> ReferenceResult:
    """Mask, choose, write, scan. Where the writer may do better it is asked again, twice at most, and told why.

    Where the writer is to read `only` some of the siblings, the literals are still those of all.
    """
    literals = find_literals(group, chat)
    task = group.task.id
    traces = [
        build_trace(rollout, literals, chat)
        for rollout in group.rollouts
        if only_siblings is None or rollout.sibling in only_siblings
    ]
    if {trace.success for trace in traces} != {True, False}:
        return ReferenceResult(task, None, "not mixed", literals)
    chosen = choose_traces(traces, budget, lambda text: len(chat.encode_text(text)))
    if chosen is None:
        cause = f"too long: not even one success and one failure fit into {budget} tokens"
        return ReferenceResult(task, None, cause, literals)
    verifier_terms = frozenset(name for rollout in group.rollouts for name in evaluator.collect_verifier_names(rollout))
    siblings_read = tuple(trace.sibling for trace in chosen.traces)
    refused, num_replaced = list[str](), 0
    while True:
        text, cause, may_retry = await _call_writer(writer, chosen, refused)
        cause = literals.union(find_secret_literals(cause)).mask(cause)  # an exception may quote what it choked on
        if not cause:
            screened = screen_for_leaks(text, literals, verifier_terms)
            if not screened.refusal:
                literals = literals.union(Literals.from_texts(screened.listed_literals))
                reference = Reference(task, screened.text, writer.name, screened.listed_literals)
                provenance = (chosen.selection, siblings_read, screened.num_replaced, tuple(refused))
                return ReferenceResult(task, reference, "", literals, *provenance)
            num_replaced, cause, may_retry = screened.num_replaced, screened.refusal, True
        refused += [cause] if may_retry else []
        if not may_retry or len(refused) > _MAX_RETRIES:
            return ReferenceResult(
                task, None, cause, literals, chosen.selection, siblings_read, num_replaced, tuple(refused)
            )


def screen_for_leaks(text: str, literals: Literals, verifier_terms: Iterable[str]) -> ScreenedText:
    """What a writer wrote, scanned for what only a verifier knows, chat marks, literals, and what looks like a secret.

    Each is found in whatever form and encoding it stands there. A name or a mark refuses the text, and so do literals
    that are more than slips.
    """
    all_literals = literals.union(find_secret_literals(text))
    if verifier_name := evaluator.find_verifier_name(text, verifier_terms):
        return ScreenedText("", refusal=f"leak: it names {verifier_name}, which only a verifier knows")
    if chat_marks := find_chat_marks(text):
        return ScreenedText("", refusal=f"chat marks: it carries {break_chat_marks(all_literals.mask(chat_marks[0]))}")
    masked, num_replaced = all_literals.mask_and_count(text)
    if num_replaced > MAX_REPLACED_LITERALS:
        return ScreenedText(
            "",
            num_replaced=num_replaced,
            refusal=f"leak: {num_replaced} literals, more than {MAX_REPLACED_LITERALS} in one reference",
        )
    listed_literals = _listed_literals(masked)
    return ScreenedText(
        all_literals.union(Literals.from_texts(listed_literals)).mask(masked), listed_literals, num_replaced
    )


def _listed_literals(text: str) -> tuple[str, ...]:
    """The literals of the fifth part."""
    words = [
        word.strip().strip(".").strip().strip(QUOTES) for line in _MASKED_PART.findall(text) for word in line.split(",")
    ]
    literals_listed = [
        word for word in words if word.casefold() not in ("none", "nothing") and not PLACEHOLDER_PATTERN.fullmatch(word)
    ]
    return tuple(dict.fromkeys(word for word in literals_listed if len(word) >= MIN_LITERAL_CHARS))


async def _call_writer(writer: Writer, chosen: ChosenTraces, refused: Sequence[str]) -> tuple[str, str, bool]:
    """What the writer wrote, or the cause why there is nothing and whether it is worth asking again."""
    try:
        text = cast(object, await writer.write(chosen.traces, tuple(refused)))
    except WriterFailed as failure:
        return "", failure.cause, failure.may_retry
    except Exception as problem:
        return "", f"writer raised: {describe_exception(problem)}", False
    if not isinstance(text, str):
        return "", f"writer gave nothing: expected a text, got {type(text).__name__}", False
    return text.strip(), "" if text.strip() else "writer gave nothing", False
