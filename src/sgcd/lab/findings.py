"""All that `sgcd lab truth` finds out about one warm start and one method, as plain JSON."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.contrast.literals import creditable
from sgcd.contrast.refer import Referred, refer
from sgcd.contrast.settings import ReferenceSettings
from sgcd.contrast.write import BuiltIn
from sgcd.credit.advantage import advantages
from sgcd.credit.settings import Sgcd as SgcdSettings
from sgcd.errors import RecipeError
from sgcd.lab import truth
from sgcd.lab.arms import OWN, Judged, explain, published, weights
from sgcd.lab.gradients import signal_to_noise
from sgcd.lab.guided import play_guided
from sgcd.lab.heeded import WITHOUT, play_arms
from sgcd.lab.located import conditions, credit_shares, direction, found_out, located
from sgcd.lab.shown import show
from sgcd.lab.start import STARTS
from sgcd.lab.tasks import tasks_of
from sgcd.learn.policy import Policy
from sgcd.learn.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import Siblings, Task

TRIALS = 8
"""Siblings of a task, and trials of it in each arm."""
SLOTS = 256
CHATTY_ROLLOUTS = 72
Say = Callable[[str], None]
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is played."""

    tasks: int = 150
    """Mixed held-out tasks on which success with a reference is measured."""
    rollouts: int = 480
    """Rollouts whose tokens are held against the truth: whole groups of siblings, the first mixed ones."""


def sizes_of(start: str) -> Sizes:
    """As much as a plain world allows in about five minutes on two cores, a chatty one in about fifteen: there every
    word of the thinking is a decision of its own, and no two siblings share it."""
    chatty = start in STARTS and STARTS[start].world.chatty != "no"
    return Sizes(rollouts=CHATTY_ROLLOUTS) if chatty else Sizes()


@dataclass(frozen=True, slots=True)
class Group:
    """Mixed siblings of one task, and what was written of their contrast."""

    siblings: Siblings
    referred: Referred
    shuffled: str
    """The text of the next group."""

    @property
    def own(self) -> str:
        return text_of(self.referred)


def find(policy: Policy, told: SgcdSettings, sizes: Sizes, seed: int, say: Say) -> Found:
    """Everything about one policy; the sampler has a thread of its own."""
    with ThreadPoolExecutor(1) as executor:
        sampler = TorchSampler(policy.model, policy.chat, SamplerSettings(slots=SLOTS), executor)
        return asyncio.run(inquire(policy, sampler, told, sizes, seed, say))


async def inquire(policy: Policy, sampler: Sampler, told: SgcdSettings, sizes: Sizes, seed: int, say: Say) -> Found:
    """Play, write references, see whether they help, find the truth of some rollouts, hold everything against it."""
    chat, begun = policy.chat, perf_counter()
    groups, tried = await mixed_groups(chat, sampler, sizes.tasks, seed, say)
    heeded = await heeding(groups, chat, sampler, seed, say)
    judged = await judge(groups[: max(2, round(sizes.rollouts / TRIALS))], policy, sampler, told, seed, say)
    say("scores, shares and gradients")
    return {
        "schema": 1,
        "method": told.model_dump(mode="json"),
        "seed": seed,
        "sizes": {**asdict(sizes), "trials": TRIALS, "tasks tried": tried, "mixed": len(groups)},
        "definition": {"top below": truth.TOP, "continuations": truth.TIMES, "errors": truth.ERRORS},
        "reference": heeded,
        "truth": found_out(judged),
        "location": located(judged, told),
        "direction": direction(judged),
        "credit": credit_shares(judged, explain(told, OWN, judged)),
        "credit, published": credit_shares(judged, explain(published(told), OWN, judged)),
        "decisive tokens": conditions(judged, told),
        "decisive tokens, published": conditions(judged, published(told)),
        "gradients": signal_to_noise(policy.model, judged, weights(told, judged)),
        "seconds": round(perf_counter() - begun, 1),
    }


async def judge(
    groups: Sequence[Group], policy: Policy, sampler: Sampler, told: SgcdSettings, seed: int, say: Say
) -> list[Judged]:
    """All rollouts of `groups`: what the teachers say of their tokens, and what these were truly worth."""
    chat = policy.chat
    rollouts = [rollout for group in groups for rollout in group.siblings.rollouts]
    numbers = [number for number, group in enumerate(groups) for _ in group.siblings.rollouts]
    gains = [float(gain) for group in groups for gain in advantages([r.reward for r in group.siblings.rollouts])]
    texts = [[groups[number].own for number in numbers], [groups[number].shuffled for number in numbers]]
    shown = show(policy.model, chat, rollouts, texts, told)
    counted = [
        rollout.mask & creditable(rollout, groups[number].referred.literals, chat)
        for rollout, number in zip(rollouts, numbers, strict=True)
    ]
    tasks, tops = [groups[number].siblings.task for number in numbers], [one.top for one in shown]
    known = await truth.truths(tasks, rollouts, tops, counted, chat, sampler, seed, truth.TIMES, say)
    return [Judged(*one) for one in zip(rollouts, numbers, gains, shown, known, strict=True)]


async def mixed_groups(chat: Chat, sampler: Sampler, wanted: int, seed: int, say: Say) -> tuple[list[Group], int]:
    """The first `wanted` held-out tasks whose siblings mix, and how many were tried; the references with them."""
    tasks, found, tried = tasks_of("dev"), list[Siblings](), 0
    while len(found) < wanted and tried < len(tasks):
        some = tasks[tried : tried + SLOTS // TRIALS]
        tried += len(some)
        played = await play_guided(some, [""] * len(some), TRIALS, chat, sampler, seed)
        found += [s for s in (Siblings(t, tuple(r)) for t, r in zip(some, played, strict=True)) if s.mixed]
        say(f"{min(len(found), wanted)} of {wanted} mixed tasks, {tried} tried")
    if len(found) < 2:
        raise RecipeError(f"lab truth: siblings mix on {len(found)} of {tried} held-out tasks; expected at least 2")
    found = found[:wanted]
    referred = [await refer(siblings, chat, BuiltIn(), ReferenceSettings().budget) for siblings in found]
    texts = [text_of(one) for one in referred]
    return [Group(*one) for one in zip(found, referred, texts[1:] + texts[:1], strict=True)], tried


def text_of(referred: Referred) -> str:
    """The built-in writer finds something to say of whatever is mixed and fits; its budget is large."""
    if referred.reference is None:
        raise RecipeError(f"lab truth: task {referred.task} has no reference: {referred.cause}")
    return referred.reference.text


async def heeding(groups: Sequence[Group], chat: Chat, sampler: Sampler, seed: int, say: Say) -> Found:
    """Success where siblings mix, in fresh plays: without a reference, with the task's own, with the next task's."""
    tasks: list[Task] = [group.siblings.task for group in groups]
    arms = {"own": [group.own for group in groups], "shuffled": [group.shuffled for group in groups]}
    played = await play_arms(tasks, arms, TRIALS, chat, sampler, seed + 1, say)
    return {
        "tasks": len(tasks),
        **{name: played.success(name) for name in played.arms},
        "own - without": played.less("own", WITHOUT),
        "own - shuffled": played.less("own", "shuffled"),
        "shuffled - without": played.less("shuffled", WITHOUT),
    }
