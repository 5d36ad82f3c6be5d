"""A reference with some of its statements wrong, on purpose: how much does its truth matter?"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.contrast.mask import PLACEHELD

KEPT = re.compile(r"^\W*keep masked\b", re.IGNORECASE)
"""The part that tells nothing of the task."""
BETWEEN = re.compile(r"\s*[,;.:](?=\s|$)\s*|\s+instead of\s+|$")
"""What stands between two statements of a line."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that a reference says, and where: the number of its line, and its place in that."""

    line: int
    start: int
    stop: int
    said: str


def statements(text: str) -> list[Statement]:
    """What a reference says behind the colons of its lines; all of a line that has none.

    >>> [one.said for one in statements("they check : find_user , get_booking .\\nkeep masked : hidden .")]
    ['find_user', 'get_booking']
    """
    found: list[Statement] = []
    for number, line in enumerate(text.splitlines()):
        if KEPT.match(line):
            continue
        at = line.index(":") + 1 if ":" in line else 0
        for match in BETWEEN.finditer(line, at):
            said = line[at : match.start()].strip()
            if said and said != "none" and not PLACEHELD.fullmatch(said):
                start = at + line[at:].index(said)
                found.append(Statement(number, start, start + len(said), said))
            at = match.end()
    return found


def corrupt(text: str, share: float, others: Sequence[str], seed: int) -> str:
    """`share` of the statements wrong, in turn swapped with one from another part and replaced by another task's.

    `others` are references of other tasks. With the same seed a larger share spoils the same statements and more.
    """
    known = statements(text)
    rng = random.Random(f"{seed} {text}")
    order = rng.sample(range(len(known)), len(known))
    foreign = sorted({one.said for other in others for one in statements(other)} - {one.said for one in known})
    wrong: dict[int, str] = {}
    for turn, at in enumerate(order[: round(share * len(known))]):
        elsewhere = [one.said for one in known if one.line != known[at].line and one.said != known[at].said]
        false = (elsewhere or foreign) if turn % 2 == 0 else (foreign or elsewhere)
        if false:
            wrong[at] = rng.choice(false)
    lines = text.splitlines()
    for at in sorted(wrong, reverse=True):  # from the end of each line, so that places before it stay what they are
        one = known[at]
        lines[one.line] = lines[one.line][: one.start] + wrong[at] + lines[one.line][one.stop :]
    return "\n".join(lines)
