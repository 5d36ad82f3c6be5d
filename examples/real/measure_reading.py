"""Measures whether a policy reads references of the supply desk, and what finds the token that decides.

Each held-out task has two scripted attempts, which part at the number that is handed out, or at handing out at all.
Run as: python measure_reading.py POLICY NUM_TASKS
"""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from make_data import NUM_TASKS, demonstrate, make_tasks, right_count, wrong_count

from sgcd.contrast.insert import build_teacher_input_ids, encode_reference, write_neutral_text
from sgcd.contrast.reference import build_reference
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import SgcdSettings
from sgcd.credit_records import OWN_REFERENCE
from sgcd.learn.policy.load import Policy, load_policy
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.supervised.conversations import Conversation, ConversationLine
from sgcd.learn.supervised.encode import encode_conversation
from sgcd.measure.statistics import clustered_interval
from sgcd.records import Group, Reference, Rollout, Task, TokenKind, Verdict
from sgcd.study.ranking import ranking_estimates
from sgcd.study.score_groups import ScoredRollout, ScoringOptions, score_groups_under_references

TEXTS = ("own", "swapped", "neutral", "another task's")
OWN_AND_SWAPPED = len(TEXTS)
UNDECIDED = 0.1
PUBLISHED = SgcdSettings(name="sgcd", min_entropy=0.0, require_reading=False)
OPTIONS = ScoringOptions(Sgcd(PUBLISHED).needs, forward=ForwardConfig(micro_batch_tokens=4096))  # pyright: ignore[reportArgumentType]
Score = Callable[[ScoredRollout], Any]
SCORES: dict[str, Score] = {
    "student's entropy, no teacher": lambda one: one.features_under(0).student_entropy,
    "student's surprisal, no teacher": lambda one: -one.logprobs,
    **{
        f"divergence, {name}": lambda one, index=index: one.features_under(index).divergence
        for index, name in enumerate(TEXTS)
    },
    "divergence, own against swapped": lambda one: one.features_under(OWN_AND_SWAPPED).divergence,
    "size of the gap, own against swapped": lambda one: np.abs(one.features_under(OWN_AND_SWAPPED).teacher_logprob_gap),
    "weights of the published rule": lambda one: published_weights(one),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A task's two attempts, and its references: of successes alone, and of both sides, each also exchanged."""

    group: Group
    own: Reference
    swapped: Reference
    both: tuple[Reference, Reference]

    @property
    def deciding(self) -> int:
        """The first token at which the attempts differ."""
        first, second = (one.response for one in self.group.rollouts)
        length = min(len(first), len(second))
        return int(np.flatnonzero(first[:length] != second[:length])[0])


def script_attempt(policy: Policy, task: dict[str, Any], count: int, *, sibling: int) -> Rollout:
    line = demonstrate(task, count)
    messages = ConversationLine.model_validate(line).messages
    rollout = encode_conversation(Conversation(tuple(messages), tuple(line["tools"]), task["id"]), policy.chat)
    verdict = Verdict(float(sibling == 0), sibling == 0)
    return replace(rollout, task=task["id"], category=task["category"], sibling=sibling, verdict=verdict)


async def script_case(policy: Policy, task: dict[str, Any]) -> Case:
    counts = (right_count(task), wrong_count(task))
    rollouts = tuple(script_attempt(policy, task, count, sibling=index) for index, count in enumerate(counts))
    group = Group(Task(task["id"], task["category"], task), rollouts)
    results = [
        await build_reference(group, policy.chat, BuiltInWriter(names), budget=10**6, with_swapped=True)
        for names in (False, True)
    ]
    pairs = [(result.reference, result.swapped) for result in results]
    texts = [text for pair in pairs for text in pair if text is not None]
    if len(texts) < 4:
        sys.exit(f"{task['id']}: {results[0].cause or results[0].swapped_cause}; expected a reference of either side")
    return Case(group, texts[0], texts[1], (texts[2], texts[3]))


def score_cases(policy: Policy, cases: Sequence[Case]) -> list[ScoredRollout]:
    """All attempts under each text, and between the teachers of both sides."""

    def inputs(texts: Sequence[str]) -> list[Any]:
        encoded = [encode_reference(policy.chat, text) for text in texts]
        return [
            build_teacher_input_ids(one, ids)
            for case, ids in zip(cases, encoded, strict=True)
            for one in case.group.rollouts
        ]

    own = [case.own.text for case in cases]
    references = [own, [case.swapped.text for case in cases], [*map(write_neutral_text, own)], [*own[1:], own[0]]]
    pairs = [tuple(inputs([case.both[side].text for case in cases]) for side in (0, 1))]
    groups = [case.group for case in cases]
    return score_groups_under_references(policy.model, groups, [*map(inputs, references)], OPTIONS, pairs)  # pyright: ignore[reportArgumentType]


def score_behind_mark(policy: Policy, cases: Sequence[Case]) -> list[ScoredRollout]:
    """All attempts with their own reference where references once stood: at the end of the system message, behind the
    example of a call."""

    def moved(one: Rollout) -> Rollout:
        return replace(one, reference_position=int(np.flatnonzero(one.prompt == policy.chat.end_id)[0]))

    groups = [replace(case.group, rollouts=tuple(map(moved, case.group.rollouts))) for case in cases]
    ids = [
        build_teacher_input_ids(one, encode_reference(policy.chat, case.own.text))
        for case, group in zip(cases, groups, strict=True)
        for one in group.rollouts
    ]
    return score_groups_under_references(policy.model, groups, [ids], OPTIONS)  # pyright: ignore[reportArgumentType]


def published_weights(one: ScoredRollout) -> Any:
    inputs = CreditInputs(one.rollout, one.advantage, {OWN_REFERENCE: one.features_under(0)})
    return Sgcd(PUBLISHED).assign_credit(inputs).credit.weight


@dataclass(frozen=True, slots=True)
class Pooled:
    """The policy's tokens of all attempts, one after the other."""

    scored: Sequence[ScoredRollout]
    deciding: Sequence[int]
    """Of each group."""

    def collect(self, score: Score) -> Any:
        return np.concatenate([np.asarray(score(one))[one.rollout.response_mask] for one in self.scored])

    @property
    def decides(self) -> Any:
        return self.collect(lambda one: np.arange(len(one.rollout.response)) == self.deciding[one.group_index])

    @property
    def undecided(self) -> Any:
        return self.collect(lambda one: one.features_under(0).student_entropy) >= UNDECIDED

    @property
    def groups(self) -> Any:
        return self.collect(lambda one: np.full(len(one.rollout.response), one.group_index))

    @property
    def attempts(self) -> Any:
        sizes = [one.rollout.num_policy_tokens for one in self.scored]
        return np.repeat(np.arange(len(sizes)), sizes)


def rank_tokens(pooled: Pooled, score: Score) -> dict[str, Any]:
    """AUROC of the deciding tokens among all and among undecided ones, and how often the highest undecided decides."""
    values, undecided = pooled.collect(score), pooled.undecided
    found: dict[str, Any] = {}
    for name, among in (("all", np.ones(len(values), bool)), ("undecided", undecided)):
        estimates = ranking_estimates([values], pooled.decides, among, pooled.groups)
        found[name] = estimates["auroc"]["own"] if estimates else None
    hits, trials = dict[int, int](), dict[int, int]()
    for attempt, one in enumerate(pooled.scored):
        mine = undecided & (pooled.attempts == attempt)
        if mine.any():
            best = np.flatnonzero(mine)[np.argmax(values[mine])]
            hits[one.group_index] = hits.get(one.group_index, 0) + bool(pooled.decides[best])
            trials[one.group_index] = trials.get(one.group_index, 0) + 1
    return {**found, "top": clustered_interval([*hits.values()], [*trials.values()]).to_json()}


def measure_reading(pooled: Pooled) -> dict[str, Any]:
    """The four tests: shares of pairs whose success a text prefers, and the divergence where the student is sure."""

    def prefers_success(index: int) -> Any:
        gains = [float(one.features_under(index).teacher_logprob_gap.sum()) for one in pooled.scored]
        wins = [int(success > failure) for success, failure in zip(gains[::2], gains[1::2], strict=True)]
        return clustered_interval(wins, [1] * len(wins)).to_json()

    shares = {f"{name} prefers the success": prefers_success(index) for index, name in enumerate(TEXTS)}
    divergence = pooled.collect(lambda one: one.features_under(0).divergence)
    return {
        **shares,
        "own above swapped": prefers_success(OWN_AND_SWAPPED),
        "divergence where the student is sure": float(divergence[~pooled.undecided].sum() / divergence.sum()),
    }


def turn_ends(one: ScoredRollout) -> Any:
    return np.isin(np.arange(len(one.rollout.response)), [turn.stop - 1 for turn in one.rollout.turns])


def credit_by_place(pooled: Pooled) -> dict[str, Any]:
    """Shares of the published rule's weight above one, of the divergence, and of the tokens, by kind of token."""
    extra = np.maximum(pooled.collect(published_weights) - 1, 0)
    divergence = pooled.collect(lambda one: one.features_under(0).divergence)
    kinds = pooled.collect(lambda one: one.rollout.token_kinds)
    ends = pooled.collect(turn_ends)
    places = {
        "deciding": pooled.decides,
        "end of a turn": ends,
        "call": (kinds == TokenKind.CALL) & ~pooled.decides & ~ends,
        "answer": (kinds == TokenKind.ANSWER) & ~pooled.decides & ~ends,
    }
    total = float(extra.sum()) or 1.0
    return {
        name: {
            "credit": float(extra[at].sum()) / total,
            "divergence": float(divergence[at].sum() / divergence.sum()),
            "tokens": float(at.mean()),
        }
        for name, at in places.items()
    }


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python measure_reading.py POLICY NUM_TASKS")
    policy = load_policy(Path(sys.argv[1]), "bfloat16")
    tasks = [*make_tasks("test", NUM_TASKS["test"])][: int(sys.argv[2])]
    cases = [asyncio.run(script_case(policy, task)) for task in tasks]
    deciding = [case.deciding for case in cases]
    pooled, behind_mark = (Pooled(score(policy, cases), deciding) for score in (score_cases, score_behind_mark))
    answer = {
        "policy": sys.argv[1],
        "attempts": len(pooled.scored),
        "tokens": len(pooled.decides),
        "undecided": int(pooled.undecided.sum()),
        "deciding and undecided": int((pooled.decides & pooled.undecided).sum()),
        "reading": measure_reading(pooled),
        "ranking": {name: rank_tokens(pooled, score) for name, score in SCORES.items()},
        "credit": credit_by_place(pooled),
        "credit, reference behind the instruction's call mark": credit_by_place(behind_mark),
        "references": [cases[index].own.text for index in (0, 1, 4) if index < len(cases)],
    }
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
