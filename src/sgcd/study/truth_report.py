"""All that `sgcd lab truth` finds out about one warm start and one method, as plain JSON."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from sgcd.act.environment import Sampler
from sgcd.chat import Chat
from sgcd.contrast.leakage.literals import creditable_mask
from sgcd.contrast.reference import ReferenceResult, build_reference
from sgcd.contrast.settings import ReferenceSettings
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.credit.advantage import advantages
from sgcd.credit.settings import SgcdSettings as SgcdSettings
from sgcd.errors import RecipeError
from sgcd.lab.play_with_reference import play_with_references
from sgcd.lab.reference_effect import WITHOUT_REFERENCE, play_reference_arms
from sgcd.lab.tasks import generate_tasks
from sgcd.lab.warm_starts import WARM_STARTS
from sgcd.learn.policy.load import Policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import Group, Task
from sgcd.storage.atomic import SCHEMA
from sgcd.study import decision_values as truth
from sgcd.study.credit_location import (
    measure_credit_location,
    measure_credit_shares,
    measure_sign_agreement,
    spike_condition_shares,
    truth_counts,
)
from sgcd.study.gradient_noise import measure_gradient_agreement
from sgcd.study.token_scores import score_tokens
from sgcd.study.weightings import (
    OWN_REFERENCE,
    RolloutWithTruth,
    assign_credits,
    build_weights,
    with_published_segments,
)

_NUM_TRIALS = 8
"""Siblings of a task, and trials of it in each arm."""
_NUM_SLOTS = 256
_CHATTY_ROLLOUTS = 72
ProgressCallback = Callable[[str], None]
ReportJson = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TruthSizes:
    """How much is played."""

    tasks: int = 150
    """Mixed held-out tasks on which success with a reference is measured."""
    rollouts: int = 480
    """Rollouts whose tokens are held against the truth: whole groups of siblings, the first mixed ones."""


def default_sizes(start: str) -> TruthSizes:
    """As much as a plain world allows in about five minutes on two cores, a chatty one in about fifteen: there every
    word of the thinking is a decision of its own, and no two siblings share it."""
    chatty = start in WARM_STARTS and WARM_STARTS[start].world.chatty != "no"
    return TruthSizes(rollouts=_CHATTY_ROLLOUTS) if chatty else TruthSizes()


@dataclass(frozen=True, slots=True)
class GroupWithReferences:
    """Mixed siblings of one task, and what was written of their contrast."""

    siblings: Group
    reference_result: ReferenceResult
    shuffled_text: str
    """The text of the next group."""

    @property
    def own_text(self) -> str:
        return reference_text(self.reference_result)


def run_truth_report(
    policy: Policy, settings: SgcdSettings, sizes: TruthSizes, seed: int, on_progress: ProgressCallback
) -> ReportJson:
    """Everything about one policy; the sampler has a thread of its own."""
    with ThreadPoolExecutor(1) as executor:
        sampler = TorchSampler(policy.model, policy.chat, SamplerSettings(slots=_NUM_SLOTS), executor)
        return asyncio.run(build_truth_report(policy, sampler, settings, sizes, seed, on_progress))


async def build_truth_report(
    policy: Policy,
    sampler: Sampler,
    settings: SgcdSettings,
    sizes: TruthSizes,
    seed: int,
    on_progress: ProgressCallback,
) -> ReportJson:
    """Play, write references, see whether they help, find the truth of some rollouts, hold everything against it."""
    chat, started = policy.chat, perf_counter()
    groups, num_tried = await collect_lab_groups(chat, sampler, sizes.tasks, seed, on_progress)
    reference_effect = await measure_reference_effect(groups, chat, sampler, seed, on_progress)
    samples = await attach_truth(
        groups[: max(2, round(sizes.rollouts / _NUM_TRIALS))], policy, sampler, settings, seed, on_progress
    )
    on_progress("scores, shares and gradients")
    return {
        "schema": SCHEMA,
        "method": settings.model_dump(mode="json"),
        "seed": seed,
        "sizes": {**asdict(sizes), "trials": _NUM_TRIALS, "tasks tried": num_tried, "mixed": len(groups)},
        "definition": {
            "top below": truth.MAX_TOP_PROB,
            "continuations": truth.NUM_CONTINUATIONS,
            "errors": truth.DECISIVE_STANDARD_ERRORS,
        },
        "reference": reference_effect,
        "truth": truth_counts(samples),
        "location": measure_credit_location(samples, settings),
        "direction": measure_sign_agreement(samples),
        "credit": measure_credit_shares(samples, assign_credits(settings, OWN_REFERENCE, samples)),
        "credit, published": measure_credit_shares(
            samples, assign_credits(with_published_segments(settings), OWN_REFERENCE, samples)
        ),
        "decisive tokens": spike_condition_shares(samples, settings),
        "decisive tokens, published": spike_condition_shares(samples, with_published_segments(settings)),
        "gradients": measure_gradient_agreement(policy.model, samples, build_weights(settings, samples)),
        "seconds": round(perf_counter() - started, 1),
    }


async def attach_truth(
    groups: Sequence[GroupWithReferences],
    policy: Policy,
    sampler: Sampler,
    settings: SgcdSettings,
    seed: int,
    on_progress: ProgressCallback,
) -> list[RolloutWithTruth]:
    """All rollouts of `groups`: what the teachers say of their tokens, and what these were truly worth."""
    chat = policy.chat
    rollouts = [rollout for group in groups for rollout in group.siblings.rollouts]
    group_indices = [group_index for group_index, group in enumerate(groups) for _ in group.siblings.rollouts]
    rollout_advantages = [
        float(advantage) for group in groups for advantage in advantages([r.reward for r in group.siblings.rollouts])
    ]
    texts = [
        [groups[group_index].own_text for group_index in group_indices],
        [groups[group_index].shuffled_text for group_index in group_indices],
    ]
    scores = score_tokens(policy.model, chat, rollouts, texts, settings)
    counted_masks = [
        rollout.response_mask & creditable_mask(rollout, groups[group_index].reference_result.literals, chat)
        for rollout, group_index in zip(rollouts, group_indices, strict=True)
    ]
    tasks, top_probs = (
        [groups[group_index].siblings.task for group_index in group_indices],
        [item.top_probs for item in scores],
    )
    true_advantages = await truth.measure_truths(
        tasks, rollouts, top_probs, counted_masks, chat, sampler, seed, truth.NUM_CONTINUATIONS, on_progress
    )
    return [
        RolloutWithTruth(*item)
        for item in zip(rollouts, group_indices, rollout_advantages, scores, true_advantages, strict=True)
    ]


async def collect_lab_groups(
    chat: Chat, sampler: Sampler, num_wanted: int, seed: int, on_progress: ProgressCallback
) -> tuple[list[GroupWithReferences], int]:
    """The first `wanted` held-out tasks whose siblings mix, and how many were tried; the references with them."""
    tasks, mixed, num_tried = generate_tasks("dev"), list[Group](), 0
    while len(mixed) < num_wanted and num_tried < len(tasks):
        chunk = tasks[num_tried : num_tried + _NUM_SLOTS // _NUM_TRIALS]
        num_tried += len(chunk)
        played = await play_with_references(
            chunk, [""] * len(chunk), _NUM_TRIALS, chat=chat, sampler=sampler, seed=seed
        )
        mixed += [s for s in (Group(t, tuple(r)) for t, r in zip(chunk, played, strict=True)) if s.mixed]
        on_progress(f"{min(len(mixed), num_wanted)} of {num_wanted} mixed tasks, {num_tried} tried")
    if len(mixed) < 2:
        raise RecipeError(f"lab truth: siblings mix on {len(mixed)} of {num_tried} held-out tasks; expected at least 2")
    mixed = mixed[:num_wanted]
    reference_results = [
        await build_reference(siblings, chat, BuiltInWriter(), budget=ReferenceSettings().budget) for siblings in mixed
    ]
    texts = [reference_text(item) for item in reference_results]
    return [
        GroupWithReferences(*item) for item in zip(mixed, reference_results, texts[1:] + texts[:1], strict=True)
    ], num_tried


def reference_text(reference_result: ReferenceResult) -> str:
    """The built-in writer finds something to say of whatever is mixed and fits; its budget is large."""
    if reference_result.reference is None:
        raise RecipeError(f"lab truth: task {reference_result.task} has no reference: {reference_result.cause}")
    return reference_result.reference.text


async def measure_reference_effect(
    groups: Sequence[GroupWithReferences], chat: Chat, sampler: Sampler, seed: int, on_progress: ProgressCallback
) -> ReportJson:
    """Success where siblings mix, in fresh plays: without a reference, with the task's own, with the next task's."""
    tasks: list[Task] = [group.siblings.task for group in groups]
    arms = {"own": [group.own_text for group in groups], "shuffled": [group.shuffled_text for group in groups]}
    plays = await play_reference_arms(tasks, arms, _NUM_TRIALS, chat, sampler, seed + 1, on_progress)
    return {
        "tasks": len(tasks),
        **{name: plays.success_estimate(name) for name in plays.arms},
        "own - without": plays.paired_difference("own", WITHOUT_REFERENCE),
        "own - shuffled": plays.paired_difference("own", "shuffled"),
        "shuffled - without": plays.paired_difference("shuffled", WITHOUT_REFERENCE),
    }
