"""The texts that teachers read besides a group's reference: a sibling's success, its answer, a reference without the
rollout itself, and one text for all tasks."""

import asyncio
from collections.abc import Sequence

from sgcd.chat import Chat
from sgcd.contrast.insert import write_leaky_text
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.trace import build_trace
from sgcd.contrast.writers.trace import show_attempt
from sgcd.records import Group, Reference, Rollout


def refer_to_siblings(group: Group, chat: Chat) -> list[Reference | None]:
    """For each rollout the first other success, step by step and unmasked, without thinking (2601.20802)."""
    return [
        sibling and _refer(sibling, "sibling", show_attempt(build_trace(sibling, Literals.from_texts([]), chat)))
        for sibling in _other_successes(group)
    ]


def refer_to_answers(group: Group, chat: Chat) -> list[Reference | None]:
    """For each rollout the last answer of the first other success: a leak, for study."""
    references: list[Reference | None] = []
    for sibling in _other_successes(group):
        turns = build_trace(sibling, Literals.from_texts([]), chat).turns if sibling else ()
        answer = turns[-1].text if turns else ""
        references.append(_refer(sibling, "answer", write_leaky_text(answer)) if sibling and answer else None)
    return references


def refer_to_skill(group: Group, skill: str) -> list[Reference | None]:
    """The same text for every rollout of every task."""
    return [Reference(group.task.id, skill, "skill")] * len(group.rollouts)


async def refer_without_self(group: Group, builder: ReferenceBuilder) -> list[Reference | None]:
    """For each rollout a reference written from its siblings alone; None where these do not part without it."""
    siblings = [rollout.sibling for rollout in group.rollouts]
    results = await asyncio.gather(
        *(builder.build(group, [other for other in siblings if other != own]) for own in siblings)
    )
    return [result.reference for result in results]


def _other_successes(group: Group) -> Sequence[Rollout | None]:
    """For each rollout the first success among its siblings that is not itself."""
    successes = [rollout for rollout in group.rollouts if rollout.success]
    return [next((other for other in successes if other is not rollout), None) for rollout in group.rollouts]


def _refer(sibling: Rollout, writer: str, text: str) -> Reference:
    return Reference(sibling.task, text, writer)
