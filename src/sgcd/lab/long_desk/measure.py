"""Measures a policy at the long desk: how loud thinking is where decisions are learned, and what each weighting gains.

With g the gradient of a group, d its part from decisions, and s the score of a held-out decision:

    rho   = E (s (g - d))^2 / E (s d)^2           noise of all other tokens over that of decisions, as decisions feel it
    sigma = E_s (s E d)^2 / E (s g)^2             the share of a group's gradient that is signal, as decisions feel it
    gain  = (E d G)^2 / E (s g)^2, over GRPO's     G the gradient of the probability that all requests are right

For SGD the inner products are plain. For Adam each parameter is divided by the root mean square of the weighting's own
gradients. All intervals are jackknife intervals over groups.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.act.environment import Sampler
from sgcd.act.settings import Limits
from sgcd.act.siblings import PlayContext, play_groups
from sgcd.chat import Chat
from sgcd.errors import EmptyResult
from sgcd.lab.long_desk.location import locate_credit, read_sign
from sgcd.lab.long_desk.scores import (
    DeskRollout,
    Gradients,
    decision_gradients,
    groups_with_scores,
    sum_gradients,
)
from sgcd.lab.long_desk.teachers import score_desk_references
from sgcd.lab.long_desk.weightings import TokenAdvantages, weigh_group
from sgcd.lab.long_desk.world import DECISIONS, build_long_desk_task_suite
from sgcd.lab.settings import LongDeskSettings
from sgcd.measure.statistics import Estimate, jackknife_estimate
from sgcd.records import Group

_GROUP_SIZE = 4
MIN_RHO, MAX_SIGMA, MAX_SIDE_DIFFERENCE, SUCCESS_RANGE = 2.0, 0.02, 0.05, (0.2, 0.4)
"""The gate: thinking must be louder than decisions, signal rare, neither side of the rule easier, and the policy must
succeed often enough to learn and seldom enough to have something to learn."""
_MIN_GROUPS = 4
ProgressMessage = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskSizes:
    """How much is played. The defaults take a few minutes on one core."""

    tasks: int = 64
    """Groups of four, of which the mixed ones are measured."""
    held_out: int = 32
    """Rollouts whose decisions the gradients are held against."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GroupParts:
    """The gradient of each mixed group under one weighting: from its decisions, and from all other tokens."""

    decisions: Gradients
    others: Gradients


def measure_long_desk(
    model: Any,
    chat: Chat,
    sampler: Sampler,
    *,
    world: LongDeskSettings,
    sizes: DeskSizes,
    on_progress: ProgressMessage = print,
) -> dict[str, Any]:
    """All measurements as plain JSON."""
    on_progress(f"{sizes.tasks} groups of {_GROUP_SIZE}, {sizes.held_out} rollouts held out")
    groups, held_out = asyncio.run(_play(chat, sampler, world, sizes))
    all_scored = groups_with_scores(model, chat, groups)
    mixed = [(group, scored) for group, scored in zip(groups, all_scored, strict=True) if group.is_mixed()]
    if len(mixed) < _MIN_GROUPS:
        raise EmptyResult(
            f"lab measure: {len(mixed)} of {len(groups)} groups are mixed; expected at least {_MIN_GROUPS}; "
            "take more tasks, or a start that succeeds more often"
        )
    everyone = [one for scored in all_scored for one in scored]
    probes = [one for scored in groups_with_scores(model, chat, held_out) for one in scored]
    probes = [one for one in probes if len(one.places) == world.requests]
    on_progress(f"gradients of {len(mixed)} mixed groups and {len(probes)} held-out rollouts")
    decisions, targets = zip(*(decision_gradients(model, one) for one in probes), strict=True)
    features = score_desk_references(model, chat, [group for group, _ in mixed])
    weighted = [weigh_group(group, scored, own) for (group, scored), own in zip(mixed, features, strict=True)]
    parts = _weighted_parts(model, mixed, weighted)
    noise = NoiseMeasure(np.concatenate(decisions), np.mean(targets, axis=0))
    measured = describe_decisions(everyone, world) | {
        "tasks": len(groups),
        "groups": len(mixed),
        "held_out": len(probes),
        "variance": _variance_by_kind(model, mixed),
        "rho": noise.rho(parts["grpo"]).to_json(),
        "sigma": noise.sigma(parts["grpo"]).to_json(),
        "right_sign": _right_sign(mixed).to_json(),
        "read": read_sign(mixed, features).to_json(),
        "location": locate_credit(mixed, weighted),
        "gains": {
            name: {metric: noise.gain(part, parts["grpo"], metric == "adam").to_json() for metric in ("sgd", "adam")}
            for name, part in parts.items()
        },
    }
    return measured | {"passes": passes_gate(measured)}


def passes_gate(measured: dict[str, Any]) -> bool:
    """Whether credit can matter at this start."""
    return (
        SUCCESS_RANGE[0] <= measured["success"] <= SUCCESS_RANGE[1]
        and measured["rho"]["value"] >= MIN_RHO
        and measured["sigma"]["value"] <= MAX_SIGMA
        and abs(measured["prob_right"]["act"] - measured["prob_right"]["refuse"]) <= MAX_SIDE_DIFFERENCE
    )


async def _play(
    chat: Chat, sampler: Sampler, world: LongDeskSettings, sizes: DeskSizes
) -> tuple[list[Group], list[Group]]:
    """Groups of siblings for the gradients, and single rollouts of other tasks."""
    suite = build_long_desk_task_suite(world)
    context = PlayContext(task_suite=suite, chat=chat, sampler=sampler, limits=desk_limits(world))
    tasks = suite.splits["dev"] + suite.splits["test"]
    groups = await play_groups(tasks[: sizes.tasks], context, group_size=_GROUP_SIZE, seed=sizes.seed, step=0)
    rest = tasks[sizes.tasks : sizes.tasks + sizes.held_out]
    return groups, await play_groups(rest, context, group_size=1, seed=sizes.seed, step=0)


def desk_limits(world: LongDeskSettings) -> Limits:
    """Room for every request."""
    return Limits(turns=world.requests, tokens=world.requests * (world.thinking * 4 // 3 + 24))


def describe_decisions(everyone: Sequence[DeskRollout], world: LongDeskSettings) -> dict[str, Any]:
    """What the policy does: success, by request, on either side of the rule, and the entropy of its thinking."""
    prob_right, may_act, is_right = (
        np.concatenate(arrays)
        for arrays in zip(*((one.prob_right, one.may_act, one.is_right) for one in everyone), strict=True)
    )
    products = [float(one.prob_right.prod()) * (len(one.places) == world.requests) for one in everyone]
    described: dict[str, Any] = {
        "success": float(np.mean([one.rollout.success for one in everyone])),
        "success_product": float(np.mean(products)),
        "request_right": float(is_right.mean()),
        "prob_right": {
            "act": float(prob_right[may_act].mean()),
            "refuse": float(prob_right[~may_act].mean()),
            "quantiles": [round(float(value), 3) for value in np.quantile(prob_right, (0.05, 0.5, 0.95))],
        },
    }
    if world.thinking:
        entropies, masses = (
            np.concatenate([getattr(one, name) for one in everyone])
            for name in ("thinking_entropies", "thinking_masses")
        )
        described["thinking"] = {
            "entropy": float(entropies.mean()),
            "most": log(len(DECISIONS)),
            "other": float(1 - masses.mean()),
            "whole": float(
                np.mean([bool(one.rollout.verdict and one.rollout.verdict.facts["thought"]) for one in everyone])
            ),
        }
    return described


def _weighted_parts(
    model: Any, mixed: Sequence[tuple[Group, Sequence[DeskRollout]]], weighted_groups: Sequence[TokenAdvantages]
) -> dict[str, GroupParts]:
    rows: dict[str, list[NDArray[np.float32]]] = {}
    for (group, scored), weighted in zip(mixed, weighted_groups, strict=True):
        coefficients = [
            [values * mask for values, mask in zip(of_rollouts, masks, strict=True)]
            for of_rollouts in weighted.values()
            for masks in ([one.is_decision for one in scored], [~one.is_decision for one in scored])
        ]
        gradients = sum_gradients(model, group.rollouts, coefficients)
        for name, pair in zip(weighted, gradients.reshape(len(weighted), 2, -1), strict=True):
            rows.setdefault(name, []).append(pair)
    return {name: GroupParts(*np.stack(pairs, axis=1)) for name, pairs in rows.items()}


def _variance_by_kind(model: Any, mixed: Sequence[tuple[Group, Sequence[DeskRollout]]]) -> dict[str, float]:
    """The share of each kind of token in the summed squares of the rollouts' scores."""
    squares = np.zeros(3)
    for _, scored in mixed:
        for one in scored:
            rest = one.rollout.response_mask & ~one.is_thinking & ~one.is_decision
            kinds = [[mask.astype(np.float32)] for mask in (one.is_thinking, one.is_decision, rest)]
            squares += np.square(sum_gradients(model, [one.rollout], kinds)).sum(axis=1)
    return dict(zip(("thinking", "decisions", "rest"), (squares / squares.sum()).tolist(), strict=True))


def _right_sign(mixed: Sequence[tuple[Group, Sequence[DeskRollout]]]) -> Estimate:
    """The share of decisions in mixed groups that the rollout's outcome calls what they are."""
    counts = np.array(
        [[sum((one.is_right == one.rollout.success).sum() for one in scored), sum(len(one.places) for one in scored)]
         for _, scored in mixed], float
    )  # fmt: skip
    left = counts.sum(axis=0) - counts
    return jackknife_estimate(
        np.append(counts[:, 0].sum() / counts[:, 1].sum(), left[:, 0] / left[:, 1]), is_share=True
    )


@dataclass(frozen=True, slots=True)
class NoiseMeasure:
    """Held-out decisions, and the gradient that all of them together should follow."""

    scores: Gradients
    target: NDArray[np.float32]

    def rho(self, part: GroupParts) -> Estimate:
        others, decisions = self._felt(part.others), self._felt(part.decisions)
        return jackknife_estimate(_means(others) / _means(decisions))

    def sigma(self, part: GroupParts) -> Estimate:
        """The numerator is unbiased: it has no group's product with itself."""
        products = (part.decisions @ self.scores.T).astype(np.float64)
        count, total, squares = len(products), products.sum(axis=0), np.square(products)
        rows = [(total, squares.sum(axis=0), count)]
        rows += [
            (total - own, squares.sum(axis=0) - square, count - 1)
            for own, square in zip(products, squares, strict=True)
        ]
        signal = np.array([((np.square(sums) - own) / (n * (n - 1))).mean() for sums, own, n in rows])
        return jackknife_estimate(signal / _means(self._felt(part.decisions + part.others)))

    def gain(self, part: GroupParts, grpo: GroupParts, is_adam: bool) -> Estimate:
        return jackknife_estimate(self._progress(part, is_adam) / self._progress(grpo, is_adam))

    def _progress(self, part: GroupParts, is_adam: bool) -> NDArray[np.float64]:
        """Of all groups, and without each of them."""
        whole = part.decisions + part.others
        scale = np.ones(whole.shape[1], np.float32)
        if is_adam:
            root = np.sqrt(np.square(whole).mean(axis=0))
            scale = np.divide(1, root, out=np.zeros_like(root), where=root > 0)
        step = (part.decisions * scale) @ self.target
        return np.square(_means(step)) / _means(self._felt(whole * scale))

    def _felt(self, gradients: Gradients) -> NDArray[np.float64]:
        """How much the held-out decisions feel of each group's gradient."""
        return np.square((gradients @ self.scores.T).astype(np.float64)).mean(axis=1)


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of all, and the means without each."""
    total = values.sum(dtype=np.float64)
    return np.append(total / len(values), (total - values) / (len(values) - 1))
