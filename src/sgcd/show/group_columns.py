"""One task on the page: its rollouts turn by turn, each token with its colours and numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgcd.credit_records import CreditRecord
from sgcd.records import Flags, Group, Rollout, TokenIds, Turn
from sgcd.show.escape_text import escape_text, escape_token
from sgcd.show.token_classes import TokenNumbers, build_token_classes, shown_mask, token_numbers
from sgcd.show.turn_strip import StripMark, build_strip
from sgcd.text import cut_middle

TokenDecoder = Callable[[TokenIds], list[str]]
"""Decode the ids of a response to the text of each token."""

MAX_OBSERVATION_CHARS = 1_200
"""Longer observations are shortened."""
MAX_PROMPT_CHARS = 3_000
"""Longer messages of the prompt are shortened."""
_WIDE_TURN_TOKENS = 40
"""A turn with more tokens needs broad columns."""


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token that the policy wrote."""

    before: str
    text: str
    after: str
    """`before` and `after` are a leading space and a final line end; they have no colour."""
    css_classes: str


@dataclass(frozen=True, slots=True)
class TurnCell:
    """One turn of one sibling."""

    tokens: tuple[ShownToken | str, ...]
    """A string stands for tokens that are not shown."""
    problems: tuple[str, ...]
    """Problems of its calls."""
    observation: str
    """The observation after the turn, with the text of the template around it."""


@dataclass(frozen=True, slots=True)
class RolloutColumn:
    """One sibling, from its outcome to its last turn."""

    key: str
    siblings: tuple[int, ...]
    """Several where they wrote and saw the same tokens and got the same credit."""
    outcome: str
    """success, failure or broken."""
    end_reason: str
    broken: str
    """What broke it; then it has no end reason."""
    facts: tuple[tuple[str, str], ...]
    advantage: float | None
    mean_weight: float | None
    """The mean over its policy tokens."""
    credited_share: float | None
    """The share of its policy tokens with a weight above one."""
    has_unit_weights: bool
    """Every weight is one."""
    num_raised: int
    """Its tokens with a weight above one."""
    num_policy_tokens: int
    cells: tuple[TurnCell, ...]
    strip: tuple[StripMark, ...]


@dataclass(frozen=True, slots=True)
class TaskSection:
    """One task: its prompt, its rollouts and its reference."""

    task: str
    category: str
    prompt_messages: tuple[tuple[str, str], ...]
    columns: tuple[RolloutColumn, ...]
    num_turns: int
    is_wide: bool
    """Some turn is long."""
    reference: Mapping[str, Any] | None

    @property
    def num_raised(self) -> int:
        """Tokens of all siblings with a weight above one."""
        return sum(column.num_raised * len(column.siblings) for column in self.columns)

    @property
    def has_weights(self) -> bool:
        """There is credit on record."""
        return any(column.mean_weight is not None for column in self.columns)

    @property
    def raised_turns(self) -> set[int]:
        """Turns, from 1, in which some sibling has a weight above one."""
        return {mark.turn for column in self.columns for mark in column.strip if mark.level}

    @property
    def outcome(self) -> str:
        """Of all siblings: success, failure or broken; mixed where they differ."""
        outcomes = {column.outcome for column in self.columns}
        return outcomes.pop() if len(outcomes) == 1 else "mixed"

    @property
    def num_siblings(self) -> int:
        return sum(len(column.siblings) for column in self.columns)


def build_task_section(
    key: str,
    group: Group,
    credit_records: Mapping[str, CreditRecord],
    *,
    references: Sequence[Mapping[str, Any]],
    decode_tokens: TokenDecoder,
    max_advantage: float,
) -> tuple[TaskSection, dict[str, TokenNumbers]]:
    """Build the section of a task, and the numbers of its tokens by the key of each column.

    `key` begins the keys of the columns; `max_advantage` is the token advantage with the strongest colour.
    """
    best_first = sorted(group.rollouts, key=lambda rollout: not rollout.success)
    columns: list[RolloutColumn] = []
    numbers: dict[str, TokenNumbers] = {}
    for index, same in enumerate(fold_equal_siblings((*best_first, *group.broken), credit_records)):
        rollout, credit_record = same[0], credit_records.get(same[0].name)
        columns.append(
            _rollout_column(
                f"{key}.{index}",
                same,
                credit_record,
                token_texts=decode_tokens(rollout.response),
                max_advantage=max_advantage,
            )
        )
        numbers[f"{key}.{index}"] = token_numbers(rollout, credit_record)
    first_rollout = next(iter((*group.rollouts, *group.broken)), None)
    reference_row = next((row for row in references if row.get("task") == group.task.id), None)
    return TaskSection(
        task=escape_text(group.task.id),
        category=group.task.category,
        prompt_messages=() if first_rollout is None else _prompt_messages(first_rollout),
        columns=tuple(columns),
        num_turns=max((len(column.cells) for column in columns), default=0),
        is_wide=any(len(cell.tokens) > _WIDE_TURN_TOKENS for column in columns for cell in column.cells),
        reference=reference_row and _reference_text(reference_row, len(group.rollouts)),
    ), numbers


def fold_equal_siblings(rollouts: Sequence[Rollout], credit_records: Mapping[str, CreditRecord]) -> list[list[Rollout]]:
    """Rollouts with the same tokens, outcome and credit, together; each list where its first one stood."""
    folded: dict[Any, list[Rollout]] = {}
    for rollout in rollouts:
        credit_record = credit_records.get(rollout.name)
        credit = credit_record.credit if credit_record else None
        weights = b"" if credit is None else np.round(credit.weight, 3).tobytes()
        same = (
            (rollout.response.tobytes(), rollout.success, credit.advantage if credit else None, weights)
            if not rollout.broken
            else rollout.name
        )
        folded.setdefault(same, []).append(rollout)
    return list(folded.values())


def _rollout_column(
    key: str,
    same: Sequence[Rollout],
    credit_record: CreditRecord | None,
    *,
    token_texts: list[str],
    max_advantage: float,
) -> RolloutColumn:
    rollout = same[0]
    mask = rollout.response_mask
    weights = None if credit_record is None or not mask.any() else credit_record.credit.weight[mask]
    facts: Mapping[str, Any] = rollout.verdict.facts if rollout.verdict else {}
    outcome = "broken" if rollout.broken else "success" if rollout.success else "failure"
    return RolloutColumn(
        key=key,
        siblings=tuple(one.sibling for one in same),
        outcome=outcome,
        end_reason="" if rollout.broken else rollout.end_reason.replace("_", " "),
        broken=escape_text(rollout.broken),
        facts=tuple((escape_text(name), _fact_text(value)) for name, value in facts.items()),
        advantage=None if credit_record is None else credit_record.credit.advantage,
        mean_weight=None if weights is None else float(weights.mean()),
        credited_share=None if weights is None else float((weights > 1).mean()),
        has_unit_weights=weights is not None and bool((weights == 1).all()),
        num_raised=0 if weights is None else int((weights > 1).sum()),
        num_policy_tokens=rollout.num_policy_tokens,
        cells=_turn_cells(
            rollout,
            token_texts=token_texts,
            token_classes=build_token_classes(rollout, credit_record, max_advantage),
        ),
        strip=build_strip(rollout, credit_record),
    )


def _turn_cells(rollout: Rollout, *, token_texts: list[str], token_classes: list[str]) -> tuple[TurnCell, ...]:
    show_mask = shown_mask(rollout.response_mask)
    starts = [*(turn.start for turn in rollout.turns), len(token_texts)][1:]
    return tuple(
        TurnCell(
            tokens=_turn_tokens(
                range(turn.start, turn.stop),
                token_texts=token_texts,
                token_classes=token_classes,
                show_mask=show_mask,
            ),
            problems=_call_problems(turn),
            observation=cut_middle(escape_text("".join(token_texts[turn.stop : start])).strip(), MAX_OBSERVATION_CHARS),
        )
        for turn, start in zip(rollout.turns, starts, strict=True)
    )


def _turn_tokens(
    positions: range, *, token_texts: list[str], token_classes: list[str], show_mask: Flags
) -> tuple[ShownToken | str, ...]:
    parts: list[ShownToken | str] = []
    num_left_out = 0
    for position in positions:
        if show_mask[position]:
            parts.append(_shown_token(token_texts[position], token_classes[position], position == positions.start))
        else:
            num_left_out += 1
            if position + 1 == positions.stop or show_mask[position + 1]:
                parts.append(f"{num_left_out:,} {'token is' if num_left_out == 1 else 'tokens are'} not shown")
                num_left_out = 0
    return tuple(parts)


def _shown_token(token_text: str, css_classes: str, is_first: bool) -> ShownToken:
    """The first token of a turn needs no space before it."""
    text, after = escape_token(token_text), ""
    if text.endswith("\n"):
        text, after = text[:-1], "\n"
    if text.startswith(" ") and text != " ":
        return ShownToken("" if is_first else " ", text[1:], after, f"{css_classes} s")
    return ShownToken("", text, after, css_classes)


def _call_problems(turn: Turn) -> tuple[str, ...]:
    failed_calls = [f"{escape_text(call.name)} answered with an error" for call in turn.calls if call.is_error]
    return (*failed_calls, *([f"could not be read: {escape_text(turn.malformed)}"] if turn.malformed else ()))


def _prompt_messages(rollout: Rollout) -> tuple[tuple[str, str], ...]:
    """(role, text) of the messages before the policy's first."""
    prompt_messages: list[tuple[str, str]] = []
    for message in rollout.messages:
        if message.get("role") == "assistant":
            break
        prompt_messages.append(
            (
                escape_text(str(message.get("role"))),
                cut_middle(escape_text(str(message.get("content"))), MAX_PROMPT_CHARS),
            )
        )
    return tuple(prompt_messages)


def _reference_text(row: Mapping[str, Any], num_siblings: int) -> dict[str, Any]:
    texts = {name: escape_text(str(row.get(name) or "")) for name in ("text", "writer", "hash", "cause")}
    literals = [escape_text(str(literal)) for literal in row.get("literals") or ()]
    return texts | {"literals": literals, "siblings": describe_siblings_read(row, num_siblings)}


def describe_siblings_read(row: Mapping[str, Any], num_siblings: int) -> str:
    """Which siblings the writer read; empty where that is not on record.

    >>> describe_siblings_read({"siblings": [0, 2], "how": "even", "contrast": "success"}, 4)
    'siblings 0, 2'
    >>> describe_siblings_read({"siblings": [0, 2], "how": "cut", "contrast": "reward"}, 2)
    'all 2 siblings, long ones shortened, better rewards against worse'
    """
    siblings: Sequence[int] = row.get("siblings") or ()
    if not siblings:
        return ""
    listed = ", ".join(map(str, siblings))
    read = f"all {num_siblings} siblings" if len(siblings) == num_siblings else f"siblings {listed}"
    shortened = ", long ones shortened" if row.get("how") in ("shortened", "cut") else ""
    return read + shortened + (", better rewards against worse" if row.get("contrast") == "reward" else "")


def _fact_text(value: Any) -> str:
    if isinstance(value, bool):
        return "✓" if value else "✗"
    return "-" if value is None else escape_text(str(value))
