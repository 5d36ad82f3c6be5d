"""sgcd references show: one group of a run, from what its writer read to the tokens that were credited."""

from collections.abc import Iterator
from pathlib import Path

from sgcd.chat import Chat
from sgcd.cli.answer import results
from sgcd.cli.rewriting import policy_of
from sgcd.errors import FolderError
from sgcd.files import Row
from sgcd.recipe import load
from sgcd.records import Rollout, Scored, Siblings
from sgcd.run import RunFolder

AROUND = 12
"""Tokens of the prompt that are shown before a reference and after it."""


def show(run: Path, task: str | None, step: int | None) -> None:
    folder = RunFolder.open(run)
    played = folder.played()
    if not played:
        raise FolderError(f"{run}: the run has no rollouts/ to show references of; they come with its first step")
    step = played[-1] if step is None else step
    groups = {one.siblings.task.id: one.siblings for one in folder.read_rollouts(step) if one.kept}
    rows: dict[str, Row] = {row["task"]: row for row in folder.read_references(step)}
    if not rows:
        raise FolderError(f"{run}: step {step} has no references; its method asks for none")
    name = next(iter(rows)) if task is None else task
    if name not in rows or name not in groups:
        raise FolderError(f"{run}: step {step} has no reference of {name!r}; expected one of {', '.join(rows)}")
    from sgcd.learn.policy import load as policy_at

    start = policy_of(folder) or load(folder.path / "recipe.yaml").policy.start
    for line in told(groups[name], rows[name], folder.read_credit(step), policy_at(str(start), "float32").chat, step):
        results().print(line, soft_wrap=True)


def told(group: Siblings, row: Row, scored: dict[str, Scored], chat: Chat, step: int) -> Iterator[str]:
    """Line by line."""
    from sgcd.contrast.insert import FOOTER, HEADER
    from sgcd.contrast.literals import literals_of
    from sgcd.contrast.trace import render, trace_of

    wins = sum(one.success for one in group.rollouts)
    yield f"task {group.task.id} in step {step}: {len(group.rollouts)} siblings, {wins} of them succeeded"
    yield "\nwhat the writer read"
    literals = literals_of(group, chat)
    for one in group.rollouts:
        if one.sibling in row["siblings"]:
            yield f"sibling {one.sibling}\n{render(trace_of(one, literals, chat))}"
    if "text" not in row:
        yield f"no reference: {row['cause']}"
        return
    yield f"what {row['writer']} wrote\n{row['text']}\n"
    first = group.rollouts[0]
    before, after = first.prompt[: first.insert_at], first.prompt[first.insert_at :]
    yield "where it goes in the teacher's prompt"
    yield f"... {chat.plain(before[-AROUND:]).strip()}\n{HEADER} ... {FOOTER}"
    yield f"{chat.plain(after[:AROUND]).strip()} ...\n"
    yield "what was credited: each token of weight above one with its weight, [masked literals], the rest as it was"
    for one in group.rollouts:
        if one.name in scored:
            sign = "success" if one.success else "failure"
            yield f"sibling {one.sibling}, {sign}, advantage {scored[one.name].credit.advantage:+.2f}"
            yield from (f"  {line}" for line in credited(one, scored[one.name], chat))


def credited(one: Rollout, scored: Scored, chat: Chat) -> Iterator[str]:
    """One line for each turn of the policy."""
    text, spans = chat.spell(one.response)
    free = one.mask if scored.creditable is None else scored.creditable
    for turn in one.turns:
        words = list[str]()
        for at in range(turn.start, turn.stop):
            word, weight = text[int(spans[at, 0]) : int(spans[at, 1])], scored.credit.weight[at]
            bare = word.strip()
            mark = f"{bare}({weight:.2f})" if weight > 1 else bare if free[at] else f"[{bare}]"
            words.append(word.replace(bare, mark) if bare else word)
        yield "".join(words).strip()
