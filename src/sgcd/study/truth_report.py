"""Builds the report of `sgcd lab truth` on one policy and one method, as plain JSON."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from sgcd.contrast.insert import build_teacher_input_ids, encode_reference, write_neutral_text
from sgcd.contrast.leakage.literals import tokens_outside_literals
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import SgcdSettings
from sgcd.lab.reference_effect import WITHOUT_REFERENCE, play_reference_arms
from sgcd.lab.warm_starts import WARM_STARTS
from sgcd.learn.policy.load import Policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import TokenIds
from sgcd.storage.atomic import SCHEMA
from sgcd.study import decision_values
from sgcd.study.credit_location import (
    measure_credit_location,
    measure_credit_shares,
    measure_sign_agreement,
    spike_condition_shares,
    truth_counts,
)
from sgcd.study.gradient_noise import measure_gradient_agreement
from sgcd.study.lab_groups import (
    NUM_SLOTS,
    NUM_TRIALS,
    GroupWithReferences,
    LabStudy,
    ProgressCallback,
    collect_lab_groups,
)
from sgcd.study.score_groups import ScoringOptions, score_groups_under_references, score_top_probs
from sgcd.study.weightings import (
    UNDER_OWN,
    RolloutWithTruth,
    assign_credits,
    build_weights,
    with_published_segments,
)

_CHATTY_ROLLOUTS = 72
ReportJson = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TruthSizes:
    """How much is played."""

    tasks: int = 150
    """Mixed held-out tasks on which success with a reference is measured."""
    rollouts: int = 480
    """Rollouts whose tokens are measured: whole groups, the first mixed ones."""


def default_sizes(start: str) -> TruthSizes:
    """Sizes that take about five minutes on two cores in a plain world, and about fifteen in a chatty one.

    In a chatty world every thinking word is a decision of its own, and no two siblings share it.
    """
    is_chatty = start in WARM_STARTS and WARM_STARTS[start].world.chatty != "no"
    return TruthSizes(rollouts=_CHATTY_ROLLOUTS) if is_chatty else TruthSizes()


def run_truth_report(
    policy: Policy, settings: SgcdSettings, sizes: TruthSizes, seed: int, on_progress: ProgressCallback
) -> ReportJson:
    """Build the report; the sampler has its own thread."""
    with ThreadPoolExecutor(1) as executor:
        sampler = TorchSampler(policy.model, policy.chat, SamplerSettings(slots=NUM_SLOTS), executor)
        study = LabStudy(policy=policy, sampler=sampler, settings=settings, seed=seed, on_progress=on_progress)
        return asyncio.run(build_truth_report(study, sizes))


async def build_truth_report(study: LabStudy, sizes: TruthSizes) -> ReportJson:
    """Play groups, measure the effect of references and the truth of some rollouts, then compare credit with it."""
    started, settings = perf_counter(), study.settings
    groups, num_tried = await collect_lab_groups(study, sizes.tasks)
    reference_effect = await measure_reference_effect(groups, study)
    samples = await attach_truth(groups[: max(2, round(sizes.rollouts / NUM_TRIALS))], study)
    study.on_progress("scores, shares and gradients")
    return {
        "schema": SCHEMA,
        "method": settings.model_dump(mode="json"),
        "seed": study.seed,
        "sizes": {**asdict(sizes), "trials": NUM_TRIALS, "tasks tried": num_tried, "mixed": len(groups)},
        "definition": {
            "top below": decision_values.MAX_TOP_PROB,
            "continuations": decision_values.NUM_CONTINUATIONS,
            "errors": decision_values.DECISIVE_STANDARD_ERRORS,
        },
        "reference": reference_effect,
        **_compare_with_truth(samples, settings),
        "gradients": measure_gradient_agreement(study.policy.model, samples, build_weights(settings, samples)),
        "seconds": round(perf_counter() - started, 1),
    }


def _compare_with_truth(samples: Sequence[RolloutWithTruth], settings: SgcdSettings) -> ReportJson:
    """The method's credit against the truth, with its own and with the paper's segment settings."""
    published = with_published_segments(settings)
    return {
        "truth": truth_counts(samples),
        "location": measure_credit_location(samples, settings),
        "direction": measure_sign_agreement(samples),
        "credit": measure_credit_shares(samples, assign_credits(settings, UNDER_OWN, samples)),
        "credit, published": measure_credit_shares(samples, assign_credits(published, UNDER_OWN, samples)),
        "decisive tokens": spike_condition_shares(samples, settings),
        "decisive tokens, published": spike_condition_shares(samples, published),
    }


async def attach_truth(groups: Sequence[GroupWithReferences], study: LabStudy) -> list[RolloutWithTruth]:
    """All rollouts of `groups`, scored under the own and the shuffled reference, with the truth of their tokens."""
    model, chat = study.policy.model, study.chat
    rollouts = [rollout for group in groups for rollout in group.siblings.rollouts]

    def inputs(texts: Sequence[str]) -> list[TokenIds]:
        return [
            build_teacher_input_ids(rollout, encode_reference(chat, text))
            for group, text in zip(groups, texts, strict=True)
            for rollout in group.siblings.rollouts
        ]

    own, shuffled = [group.own_text for group in groups], [group.shuffled_text for group in groups]
    references = (own, shuffled, [group.swapped_text for group in groups], [write_neutral_text(text) for text in own])
    both_sides = [inputs([group.both_sides[side] for group in groups]) for side in (0, 1)]
    scored_rollouts = score_groups_under_references(
        model,
        [group.siblings for group in groups],
        [inputs(texts) for texts in references],
        ScoringOptions(Sgcd(study.settings).needs),
        pairs=[(both_sides[0], both_sides[1]), (inputs(own), inputs(shuffled))],
    )
    top_probs = score_top_probs(model, rollouts)
    measurements: list[decision_values.MeasuredRollout] = []
    for scored, rollout_top_probs in zip(scored_rollouts, top_probs, strict=True):
        group, rollout = groups[scored.group_index], scored.rollout
        counted = rollout.response_mask & tokens_outside_literals(rollout, group.reference_result.literals, chat)
        measurements.append(decision_values.MeasuredRollout(group.siblings.task, rollout, rollout_top_probs, counted))
    truths = await decision_values.measure_truths(
        measurements,
        chat,
        study.sampler,
        seed=study.seed,
        num_plays=decision_values.NUM_CONTINUATIONS,
        on_progress=study.on_progress,
    )
    columns = zip(scored_rollouts, top_probs, truths, strict=True)
    return [RolloutWithTruth(scored, rollout_top_probs, truth) for scored, rollout_top_probs, truth in columns]


async def measure_reference_effect(groups: Sequence[GroupWithReferences], study: LabStudy) -> ReportJson:
    """Success of fresh plays where siblings are mixed: without a reference, with the own, with the next group's."""
    tasks = [group.siblings.task for group in groups]
    arms = {"own": [group.own_text for group in groups], "shuffled": [group.shuffled_text for group in groups]}
    plays = await play_reference_arms(
        tasks,
        arms,
        NUM_TRIALS,
        chat=study.chat,
        sampler=study.sampler,
        seed=study.seed + 1,
        on_progress=study.on_progress,
    )
    return {
        "tasks": len(tasks),
        **{name: plays.success_estimate(name) for name in plays.arms},
        "own - without": plays.paired_difference("own", WITHOUT_REFERENCE),
        "own - shuffled": plays.paired_difference("own", "shuffled"),
        "shuffled - without": plays.paired_difference("shuffled", WITHOUT_REFERENCE),
    }
