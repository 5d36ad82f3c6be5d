"""Builds a group's credit reference: prepares what the writer reads, calls the writer, screens its text for leaks."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np

from sgcd.chat import Chat
from sgcd.contrast.choose import ChosenTraces, Contrast, choose_traces, split_by_outcome
from sgcd.contrast.insert import FittedReference, fit_reference
from sgcd.contrast.leakage.chat_marks import break_chat_marks, find_chat_marks
from sgcd.contrast.leakage.literals import find_literals, find_secret_literals, tokens_outside_literals
from sgcd.contrast.leakage.masking import MIN_LITERAL_CHARS, PLACEHOLDER_PATTERN, Literals
from sgcd.contrast.leakage.normalize import QUOTES
from sgcd.contrast.leakage.verifier_names import collect_verifier_names, find_verifier_name
from sgcd.contrast.text_thread import run_in_text_thread
from sgcd.contrast.trace import build_traces, swap_outcomes
from sgcd.contrast.writers import Writer, WriterFailed
from sgcd.records import Flags, Group, Reference
from sgcd.text import describe_exception

_MAX_RETRIES = 2
MAX_REPLACED_LITERALS = 5
"""A text with at most this many literals is kept, with the literals replaced. A text with more is refused."""
_MASKED_PART = re.compile(r"^\W*keep masked\b[^:]*:(.*)$", re.IGNORECASE | re.MULTILINE)
"""The fifth part of a reference: values that the writer saw and wants kept out of credit."""


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """A group's reference, or the cause why it has none. Both come with the literals that get no extra credit."""

    task: str
    reference: Reference | None
    cause: str
    """Empty when there is a reference. The metrics count its words up to the first colon: not mixed, too long,
    writer raised, writer gave nothing, nothing parts them, leak, chat marks."""
    literals: Literals
    selection: str = ""
    """How the writer's siblings were chosen: see `ChosenTraces.selection`."""
    contrast: Contrast = "success"
    """reward: no sibling, or every one, succeeded, and better rewards were compared with worse ones."""
    siblings_read: tuple[int, ...] = ()
    """The siblings that the writer read."""
    num_replaced: int = 0
    """Literals in the writer's last screened text; each was replaced by a placeholder."""
    refused: tuple[str, ...] = ()
    """One cause for each refused answer of the writer."""
    swapped: Reference | None = None
    """Written from the same traces with success and failure exchanged, in a step that reads it."""
    swapped_cause: str = ""
    """Why a step that reads it has none."""

    def to_json(self) -> dict[str, Any]:
        """A row of the run's folder. It holds the literals that the writer listed, and no others."""
        text = {"text": self.reference.text, "hash": self.reference.hash} if self.reference else {}
        return {
            "task": self.task,
            **text,
            "writer": self.reference.writer if self.reference else None,
            "literals": list(self.reference.literals) if self.reference else [],
            "cause": self.cause,
            "how": self.selection,
            "contrast": self.contrast,
            "siblings": list(self.siblings_read),
            "replaced": self.num_replaced,
            "refused": list(self.refused),
            **({"swapped": self.swapped.text} if self.swapped else {}),
            **({"swapped_cause": self.swapped_cause} if self.swapped_cause else {}),
        }


@dataclass(frozen=True, slots=True)
class ReferenceBuilder:
    """Builds references with one writer and one token budget, and fits them into the teacher's prompt."""

    writer: Writer
    chat: Chat
    budget: int
    min_tokens: int
    min_reward_gap: float = 0.0

    async def build(
        self, group: Group, only_siblings: Collection[int] | None = None, *, with_swapped: bool = False
    ) -> ReferenceResult:
        return await build_reference(
            group,
            self.chat,
            self.writer,
            budget=self.budget,
            only_siblings=only_siblings,
            min_reward_gap=self.min_reward_gap,
            with_swapped=with_swapped,
        )

    def tokens_outside_literals(self, group: Group, result: ReferenceResult) -> list[Flags]:
        """One mask for each rollout: False on tokens of a literal; all True when the group has no reference."""
        if result.reference is None:
            return [np.ones(len(rollout.response), np.bool_) for rollout in group.rollouts]
        return [tokens_outside_literals(rollout, result.literals, self.chat) for rollout in group.rollouts]

    def fit_to_window(self, reference: Reference, max_tokens: int) -> FittedReference | None:
        """The reference as at most `max_tokens` ids; None when too few would be left."""
        return fit_reference(self.chat, reference.text, max_tokens, min_tokens=self.min_tokens)


@dataclass(frozen=True, slots=True)
class WriterInput:
    """The traces that the writer reads, with all that is needed to screen its answer."""

    task: str
    chosen: ChosenTraces
    literals: Literals
    verifier_terms: frozenset[str]
    refused: tuple[str, ...] = ()
    """Causes why earlier answers to the same traces were refused."""
    num_replaced: int = 0
    """Literals in the last refused text."""
    contrast: Contrast = "success"

    def swap_outcomes(self) -> Self:
        """The same traces with success and failure exchanged."""
        return replace(self, chosen=replace(self.chosen, traces=tuple(swap_outcomes(self.chosen.traces))))


@dataclass(frozen=True, slots=True)
class WriterAnswer:
    """The writer's text, or why there is none."""

    text: str = ""
    failure: str = ""
    may_retry: bool = False


@dataclass(frozen=True, slots=True)
class ScreenedText:
    """A writer's text without literals and the literals that it listed, or the reason why it is refused."""

    text: str
    listed_literals: tuple[str, ...] = ()
    num_replaced: int = 0
    refusal: str = ""


async def build_reference(
    group: Group,
    chat: Chat,
    writer: Writer,
    *,
    budget: int,
    only_siblings: Collection[int] | None = None,
    min_reward_gap: float = 0.0,
    with_swapped: bool = False,
) -> ReferenceResult:
    """Find literals, mask traces, choose traces, call the writer, screen its text.

    `only_siblings` limits what the writer reads; the literals are those of all siblings. `with_swapped`: the writer
    also gets the same traces with success and failure exchanged, once it has a text. The writer is called on the event
    loop; the rest is pure, and runs in the text thread.
    """
    prepared = await run_in_text_thread(
        prepare_reference,
        group,
        chat,
        budget=budget,
        only_siblings=only_siblings,
        min_reward_gap=min_reward_gap,
        with_steps=writer.reads_steps,
    )
    if isinstance(prepared, ReferenceResult):
        return prepared
    result = await _write_reference(writer, prepared)
    if not with_swapped or not result.reference:
        return result
    swapped = await _write_reference(writer, prepared.swap_outcomes())
    return replace(result, swapped=swapped.reference, swapped_cause=swapped.cause)


async def _write_reference(writer: Writer, writer_input: WriterInput) -> ReferenceResult:
    """A refused answer is requested again with its cause, at most twice."""
    progress: WriterInput | ReferenceResult = writer_input
    while isinstance(progress, WriterInput):
        answer = await call_writer(writer, progress)
        progress = await run_in_text_thread(finish_reference, progress, answer, writer.name)
    return progress


def prepare_reference(
    group: Group,
    chat: Chat,
    *,
    budget: int,
    only_siblings: Collection[int] | None = None,
    min_reward_gap: float = 0.0,
    with_steps: bool = True,
) -> WriterInput | ReferenceResult:
    """What the writer reads, or the result when there is nothing to write from."""
    literals = find_literals(group, chat)
    task = group.task.id
    split = split_by_outcome(
        [rollout for rollout in group.rollouts if only_siblings is None or rollout.sibling in only_siblings],
        min_reward_gap,
    )
    if split is None:
        return ReferenceResult(task, None, "not mixed", literals)
    rollouts, contrast = split
    traces = build_traces(rollouts, literals, chat, with_steps=with_steps)
    chosen = choose_traces(traces, budget, lambda text: len(chat.encode_text(text)))
    if chosen is None:
        cause = f"too long: not even one success and one failure fit into {budget} tokens"
        return ReferenceResult(task, None, cause, literals, contrast=contrast)
    verifier_terms = frozenset(name for rollout in group.rollouts for name in collect_verifier_names(rollout))
    return WriterInput(task, chosen, literals, verifier_terms, contrast=contrast)


async def call_writer(writer: Writer, writer_input: WriterInput) -> WriterAnswer:
    """One answer of the writer. Whatever the writer raises or returns becomes an answer."""
    try:
        text = cast(object, await writer.write(writer_input.chosen.traces, writer_input.refused))
    except WriterFailed as failure:
        return WriterAnswer(failure=failure.cause, may_retry=failure.may_retry)
    except Exception as problem:
        return WriterAnswer(failure=f"writer raised: {describe_exception(problem)}")
    if not isinstance(text, str):
        return WriterAnswer(failure=f"writer gave nothing: expected a text, got {type(text).__name__}")
    text = text.strip()
    return WriterAnswer(text) if text else WriterAnswer(failure="writer gave nothing")


def finish_reference(
    writer_input: WriterInput, answer: WriterAnswer, writer_name: str
) -> WriterInput | ReferenceResult:
    """The result, or the writer's next input when the answer is refused and another may be better."""
    literals, refused = writer_input.literals, writer_input.refused
    num_replaced, may_retry = writer_input.num_replaced, answer.may_retry
    reference: Reference | None = None
    # an exception may quote a literal
    cause = literals.union(find_secret_literals(answer.failure)).mask(answer.failure)
    if not cause:
        screened = screen_for_leaks(answer.text, literals, writer_input.verifier_terms)
        num_replaced, cause, may_retry = screened.num_replaced, screened.refusal, True
        if not cause:
            literals = literals.union(Literals.from_texts(screened.listed_literals))
            reference = Reference(writer_input.task, screened.text, writer_name, screened.listed_literals)
    if cause and may_retry:
        refused = (*refused, cause)
        if len(refused) <= _MAX_RETRIES:
            return replace(writer_input, refused=refused, num_replaced=num_replaced)
    return ReferenceResult(
        writer_input.task,
        reference,
        cause,
        literals,
        selection=writer_input.chosen.selection,
        contrast=writer_input.contrast,
        siblings_read=tuple(trace.sibling for trace in writer_input.chosen.traces),
        num_replaced=num_replaced,
        refused=refused,
    )


def screen_for_leaks(text: str, literals: Literals, verifier_terms: Iterable[str]) -> ScreenedText:
    """Scan a writer's text for verifier names, chat marks, literals and texts with the shape of a secret.

    All decodings of the text are scanned. A verifier name, a chat mark or more than `MAX_REPLACED_LITERALS` literals
    refuse the text; fewer literals are replaced.
    """
    all_literals = literals.union(find_secret_literals(text))
    if verifier_name := find_verifier_name(text, verifier_terms):
        return ScreenedText("", refusal=f"leak: it names {verifier_name}, which only a verifier knows")
    if chat_marks := find_chat_marks(text):
        return ScreenedText("", refusal=f"chat marks: it carries {break_chat_marks(all_literals.mask(chat_marks[0]))}")
    masked, num_replaced = all_literals.mask_and_count(text)
    if num_replaced > MAX_REPLACED_LITERALS:
        refusal = f"leak: {num_replaced} literals, more than {MAX_REPLACED_LITERALS} in one reference"
        return ScreenedText("", num_replaced=num_replaced, refusal=refusal)
    listed_literals = _listed_literals(masked)
    masked = all_literals.union(Literals.from_texts(listed_literals)).mask(masked)
    return ScreenedText(masked, listed_literals, num_replaced)


def _listed_literals(text: str) -> tuple[str, ...]:
    """The literals that the fifth part lists."""
    words = [
        word.strip().strip(".").strip().strip(QUOTES) for line in _MASKED_PART.findall(text) for word in line.split(",")
    ]
    literals_listed = [
        word for word in words if word.casefold() not in ("none", "nothing") and not PLACEHOLDER_PATTERN.fullmatch(word)
    ]
    return tuple(dict.fromkeys(word for word in literals_listed if len(word) >= MIN_LITERAL_CHARS))
