"""Writes what a step of verl did into the run's folder, where report, compare and credit find it as of any run."""

from collections.abc import Mapping, Sequence
from typing import Any

from sgcd.act.siblings import CollectedGroups
from sgcd.credit.methods import Method
from sgcd.learn.scoring.forward import sampler_mismatch
from sgcd.learn.training.credit_metrics import RolloutCredit
from sgcd.learn.training.rollout_metrics import all_groups, rollout_metrics
from sgcd.learn.training.step import StepCredit
from sgcd.learn.training.teacher_scorer import ScoredGroup
from sgcd.learn.training.timers import peak_memory
from sgcd.learn.training.trainer import NO_MIXED_GROUP
from sgcd.storage.metrics import EndpointUsage, StepMetrics, UpdateMetrics
from sgcd.storage.run_folder import RunFolder

_PHASES = {
    "gen": "sampling",
    "old_log_prob": "teacher",
    "adv": "credit",
    "update_actor": "training",
}
"""verl's timers by the phase of ours that they measure. Environments and references run beside sampling."""


def write_step(
    folder: RunFolder,
    step: int,
    collected: CollectedGroups,
    scored: Sequence[ScoredGroup],
    rollout_credits: Sequence[RolloutCredit],
    *,
    method: Method,
    metrics: Mapping[str, Any],
    endpoint_usage: Mapping[str, EndpointUsage],
    seconds: Mapping[str, float],
) -> None:
    """Rollouts, references, credit and the row of metrics of one step."""
    groups = all_groups(collected)
    folder.write_rollouts(step, groups, [index < len(collected.kept) for index in range(len(groups))])
    results = [one.reference_result for one in scored if one.reference_result]
    if results:
        folder.write_references(step, [result.to_json() for result in results])
    folder.write_credit(step, {one.rollout.name: one.record for one in rollout_credits})
    inputs = [entry for one in scored for entry in one.inputs]
    credit = StepCredit(list(rollout_credits), inputs, results)
    row = StepMetrics.build(
        step=step,
        rollouts=rollout_metrics(collected),
        update=_update_metrics(credit, method, metrics, is_skipped=not collected.kept),
        peak_memory=peak_memory(),
        endpoint_usage=endpoint_usage,
        seconds={
            **{name: seconds[timer] for timer, name in _PHASES.items() if timer in seconds},
            "total": sum(seconds.get(timer, 0.0) for timer in _PHASES),
        },
    )
    folder.append_metrics(row)


def _update_metrics(
    credit: StepCredit, method: Method, metrics: Mapping[str, Any], *, is_skipped: bool
) -> UpdateMetrics:
    if is_skipped:
        return UpdateMetrics(skipped=NO_MIXED_GROUP, updates=0)
    rollouts = [one.rollout for one in credit.rollout_credits]
    logprobs = [one.logprobs for one in credit.rollout_credits if one.logprobs is not None]
    mean_gap, max_gap = sampler_mismatch(rollouts, logprobs)
    return UpdateMetrics(
        lr=metrics.get("actor/lr"),
        updates=1,
        loss=metrics.get("actor/pg_loss"),
        grad_norm=metrics.get("actor/grad_norm"),
        clip_share=metrics.get("actor/pg_clipfrac"),
        kl=metrics.get("actor/kl_loss"),
        entropy=metrics.get("actor/entropy"),
        sampler_gap_mean=mean_gap,
        sampler_gap_max=max_gap,
        reference=credit.reference_metrics(method),
        credit=credit.credit_metrics(method),
    )
