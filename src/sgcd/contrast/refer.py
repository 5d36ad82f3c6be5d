"""From siblings to a reference, or to the cause why there is none; nothing that a writer does gets past here."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sgcd.chat import Chat
from sgcd.contrast import evaluator
from sgcd.contrast.choose import Chosen, choose
from sgcd.contrast.fold import QUOTES
from sgcd.contrast.insert import Fitted, fit
from sgcd.contrast.literals import literals_of, shapes
from sgcd.contrast.marks import marks, without_marks
from sgcd.contrast.mask import PLACEHELD, SHORTEST, Literals
from sgcd.contrast.trace import trace_of
from sgcd.contrast.write import Unwritten, Writer
from sgcd.records import Reference, Siblings

RETRIES = 2
REPLACED = 5
"""So many literals in what a writer wrote are slips and are replaced; one more, and it is not shown to anyone."""
FIFTH = re.compile(r"^\W*keep masked\b[^:]*:(.*)$", re.IGNORECASE | re.MULTILINE)
"""The template's fifth part: literals that the writer saw and that are to stay out of credit."""


@dataclass(frozen=True, slots=True)
class Referred:
    """What came of a group: a reference or a cause, and in either case the literals that credit keeps off."""

    task: str
    reference: Reference | None
    cause: str
    """Empty where there is a reference. Its first words, up to a colon, are what is counted: not mixed, too long,
    writer raised, writer gave nothing, leak, chat marks."""
    literals: Literals
    how: str = ""
    """How the writer's siblings were chosen."""
    siblings: tuple[int, ...] = ()
    """Which the writer read."""
    replaced: int = 0
    """Literals that the writer let slip."""
    refused: tuple[str, ...] = ()
    """Why answers of the writer were not taken, each by its cause."""

    def plain(self) -> dict[str, Any]:
        """A line of the run's folder. Literals that were there before anything was written stay out of it."""
        text = {"text": self.reference.text, "hash": self.reference.hash} if self.reference else {}
        return {
            "task": self.task,
            **text,
            "writer": self.reference.writer if self.reference else None,
            "literals": list(self.reference.literals) if self.reference else [],
            "cause": self.cause,
            "how": self.how,
            "siblings": list(self.siblings),
            "replaced": self.replaced,
            "refused": list(self.refused),
        }


@dataclass(frozen=True, slots=True)
class Contrast:
    """What turns siblings into references: a writer, how much it reads, and where its words go."""

    writer: Writer
    chat: Chat
    budget: int
    least: int

    async def refer(self, siblings: Siblings, only: Collection[int] | None = None) -> Referred:
        return await refer(siblings, self.chat, self.writer, self.budget, only)

    def fit(self, reference: Reference, room: int) -> Fitted | None:
        """The reference as ids, for a rollout that leaves `room` of them in the model's window."""
        return fit(self.chat, reference.text, room, self.least)


@dataclass(frozen=True, slots=True)
class Received:
    """What a writer wrote, without literals; what it listed to keep masked; or why nobody may see it."""

    text: str
    listed: tuple[str, ...] = ()
    replaced: int = 0
    leak: str = ""


async def refer(
    siblings: Siblings, chat: Chat, writer: Writer, budget: int, only: Collection[int] | None = None
) -> Referred:
    """Mask, choose, write, scan. Where the writer may do better it is asked again, twice at most, and told why.

    Where the writer is to read `only` some of the siblings, the literals are still those of all.
    """
    literals = literals_of(siblings, chat)
    task = siblings.task.id
    traces = [trace_of(one, literals, chat) for one in siblings.rollouts if only is None or one.sibling in only]
    if {trace.success for trace in traces} != {True, False}:
        return Referred(task, None, "not mixed", literals)
    chosen = choose(traces, budget, lambda text: len(chat.words(text)))
    if chosen is None:
        cause = f"too long: not even one success and one failure fit into {budget} tokens"
        return Referred(task, None, cause, literals)
    names = frozenset(name for rollout in siblings.rollouts for name in evaluator.names(rollout))
    read = tuple(trace.sibling for trace in chosen.traces)
    refused, replaced = list[str](), 0
    while True:
        text, cause, again = await _written(writer, chosen, refused)
        cause = literals.joined(shapes(cause)).mask(cause)  # an exception may quote what it choked on
        if not cause:
            received = receive(text, literals, names)
            if not received.leak:
                literals = literals.joined(Literals.of(received.listed))
                reference = Reference(task, received.text, writer.name, received.listed)
                told = (chosen.how, read, received.replaced, tuple(refused))
                return Referred(task, reference, "", literals, *told)
            replaced, cause, again = received.replaced, received.leak, True
        refused += [cause] if again else []
        if not again or len(refused) > RETRIES:
            return Referred(task, None, cause, literals, chosen.how, read, replaced, tuple(refused))


def receive(text: str, literals: Literals, names: Iterable[str]) -> Received:
    """What a writer wrote, scanned for what only a verifier knows, chat marks, literals, and what looks like a secret.

    Each is found in whatever form and encoding it stands there. A name or a mark refuses the text, and so do literals
    that are more than slips.
    """
    known = literals.joined(shapes(text))
    if named := evaluator.named(text, names):
        return Received("", leak=f"leak: it names {named}, which only a verifier knows")
    if carried := marks(text):
        return Received("", leak=f"chat marks: it carries {without_marks(known.mask(carried[0]))}")
    masked, replaced = known.masked(text)
    if replaced > REPLACED:
        return Received("", replaced=replaced, leak=f"leak: {replaced} literals, more than {REPLACED} in one reference")
    listed = _listed(masked)
    return Received(known.joined(Literals.of(listed)).mask(masked), listed, replaced)


def _listed(text: str) -> tuple[str, ...]:
    """The literals of the fifth part."""
    words = [word.strip().strip(".").strip().strip(QUOTES) for line in FIFTH.findall(text) for word in line.split(",")]
    said = [word for word in words if word.casefold() not in ("none", "nothing") and not PLACEHELD.fullmatch(word)]
    return tuple(dict.fromkeys(word for word in said if len(word) >= SHORTEST))


async def _written(writer: Writer, chosen: Chosen, refused: Sequence[str]) -> tuple[str, str, bool]:
    """What the writer wrote, or the cause why there is nothing and whether it is worth asking again."""
    try:
        text = cast(object, await writer.write(chosen.traces, tuple(refused)))
    except Unwritten as nothing:
        return "", nothing.cause, nothing.again
    except Exception as problem:
        return "", "writer raised: " + " ".join(f"{type(problem).__name__}: {problem}".split()).rstrip(":"), False
    if not isinstance(text, str):
        return "", f"writer gave nothing: expected a text, got {type(text).__name__}", False
    return text.strip(), "" if text.strip() else "writer gave nothing", False
