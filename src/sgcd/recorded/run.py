"""A folder with the credit of recorded rollouts: the files of a run, a batch of tasks in place of a step."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from sgcd.act.settings import RecordedSettings
from sgcd.chat import Chat
from sgcd.chat.words import WORDS_FILE, WordChat
from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import CreditInputs, Method
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit_records import CreditRecord, Signal
from sgcd.endpoint.client import Endpoint, connect_endpoints
from sgcd.measure.reading import why_not_read
from sgcd.measure.summary import divide_or_none
from sgcd.recipe.schema import Recipe
from sgcd.recorded.encode import EncodedGroups, encode_groups
from sgcd.recorded.groups import RolloutIndex, Siblings, iterate_batches
from sgcd.recorded.points import PointFinder, credit_of_points, points_to_json
from sgcd.recorded.scores import BatchScores, has_scores, read_scores, write_scores
from sgcd.records import Group
from sgcd.storage.atomic import Row, write_atomic
from sgcd.storage.credit_metrics import CreditMetrics
from sgcd.storage.metrics import ReferenceMetrics, StepMetrics
from sgcd.storage.run_folder import RunFolder

BATCH_TASKS = 8
"""Tasks of a batch; a command that is stopped goes on with the batch in which it was."""
ProgressLine = Callable[[str], None]


class Scorer(Protocol):
    """A policy that scores; see score.py."""

    async def score(self, groups: Sequence[Group], results: Sequence[ReferenceResult]) -> BatchScores:
        """Scores without the rows of the references."""
        ...

    def measure(self, inputs: Sequence[CreditInputs], signals: Sequence[Signal], scores: BatchScores) -> CreditMetrics:
        """The metrics of a batch's credit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """Credit for the mixed tasks of some files, batch by batch."""

    folder: RunFolder
    """Set before it runs."""
    recipe: Recipe
    index: RolloutIndex
    tasks: Sequence[Siblings]
    """The mixed tasks."""
    chat: Chat
    builder: ReferenceBuilder
    finder: PointFinder
    """The builder's writer."""
    method: Method
    window: int
    scorer: Scorer | None = None
    """None: no model reads the rollouts."""
    writer_endpoint: Endpoint | None = None
    left_out: Counter[str] = field(default_factory=Counter[str])
    """Rollouts of mixed tasks that could not be used, by cause."""
    on_progress: ProgressLine = print

    async def run(self) -> None:
        """Score what is not scored yet, then weigh all batches that have no row of metrics yet."""
        endpoints = {"endpoint": self.writer_endpoint} if self.writer_endpoint else {}
        async with connect_endpoints(endpoints, {"endpoint": self.folder.calls_path}):
            await self._run()

    async def _run(self) -> None:
        if self.scorer:
            await self._score(self.scorer)
        reads_references = not why_not_read(self._reading_rows()) if self.scorer else True
        done = len(self.folder.read_metrics())
        self.folder.rewind(done)
        for number, batch in self._batches():
            if number > done:
                await self._weigh(number, batch, reads_references)

    @property
    def success(self) -> float:
        """The reward from which on a rollout is a success."""
        assert isinstance(self.recipe.environment, RecordedSettings)
        return self.recipe.environment.success

    def _batches(self) -> Iterator[tuple[int, Sequence[Siblings]]]:
        return iterate_batches(self.tasks, BATCH_TASKS)

    def _encode(self, batch: Sequence[Siblings]) -> EncodedGroups:
        return encode_groups(self.index, batch, self.chat, success=self.success, window=self.window)

    async def _score(self, scorer: Scorer) -> None:
        teachers = self.method.needs.teachers if self.method.needs else ()
        for number, batch in self._batches():
            if has_scores(self.folder.path, number):
                continue
            groups = self._encode(batch).groups
            results, rows = await self._contrast(groups)
            scores = replace(await scorer.score(groups, results), references=rows)
            write_scores(self.folder.path, number, scores, teachers)
            self.on_progress(f"scored {min(number * BATCH_TASKS, len(self.tasks))} of {len(self.tasks)} mixed tasks")

    async def _contrast(self, groups: Sequence[Group]) -> tuple[list[ReferenceResult], list[Row]]:
        """The reference of each group, and its row with the points at which siblings part."""
        results: list[ReferenceResult] = []
        rows: list[Row] = []
        for group in groups:
            self.finder.start()
            results.append(await self.builder.build(group, with_swapped=self.scorer is not None))
            rows.append({**results[-1].to_json(), "points": points_to_json(self.finder.points or ())})
        return results, rows

    def _reading_rows(self) -> list[StepMetrics]:
        """The pairs of all batches, which together show whether the policy reads its references."""
        teachers = self.method.needs.teachers if self.method.needs else ()
        counts = [read_scores(self.folder.path, number, teachers).reading_counts for number, _ in self._batches()]
        return [StepMetrics(step=1, credit=CreditMetrics(reading=[one for of_batch in counts for one in of_batch]))]

    async def _weigh(self, number: int, batch: Sequence[Siblings], reads_references: bool) -> None:
        """Give the tokens of a batch their weights, and write all its files; its row of metrics comes last."""
        encoded = self._encode(batch)
        self.left_out.update(encoded.unusable)
        teachers = self.method.needs.teachers if self.method.needs else ()
        if self.scorer:
            scores = read_scores(self.folder.path, number, teachers)
        else:
            scores = BatchScores((await self._contrast(encoded.groups))[1])
        inputs = [
            one for group in encoded.groups for one in credit_inputs(group, scores, self.recipe, reads_references)
        ]
        self.method.observe_step(inputs)
        signals = [self.method.assign_credit(one.without_unread(self.method.needs)) for one in inputs]
        if not self.scorer and isinstance(self.method, Grpo):
            signals = [_weigh_points(one, scores.references) for one in inputs]
        credit_records = {
            one.rollout.name: CreditRecord(signal.credit, one.reference_features, one.outside_literals, signal.saliency)
            for one, signal in zip(inputs, signals, strict=True)
        }
        is_kept = [len({rollout.reward for rollout in group.rollouts}) > 1 for group in encoded.groups]
        groups = [_with_places(group, encoded) for group in encoded.groups]
        self.folder.write_rollouts(number, groups, is_kept)
        self.folder.write_references(number, scores.references)
        self.folder.write_credit(number, credit_records)
        if isinstance(self.chat, WordChat):
            write_atomic(self.folder.path / WORDS_FILE, json.dumps(self.chat.words).encode())
        row = build_row(number, encoded, scores.references)
        if self.scorer:
            row = row.model_copy(update={"credit": self.scorer.measure(inputs, signals, scores)})
        self.folder.append_metrics(row)


def credit_inputs(group: Group, scores: BatchScores, recipe: Recipe, reads_references: bool) -> list[CreditInputs]:
    """What the method reads of each rollout of a group."""
    rewards = [rollout.reward for rollout in group.rollouts]
    surrogate = recipe.surrogate
    values = [float(value) for value in advantages(rewards, surrogate.baseline, surrogate.scale_by_std)]
    inputs: list[CreditInputs] = []
    for rollout, advantage in zip(group.rollouts, values, strict=True):
        logprobs, entropies = scores.logprobs_of(rollout.name) or (None, None)
        inputs.append(
            CreditInputs(
                rollout,
                advantage,
                scores.features_of(rollout.name),
                scores.outside_literals_of(rollout.name),
                group,
                group_advantages=values,
                logprobs=logprobs,
                entropy=entropies,
                step=1,
                reads_references=reads_references,
            )
        )
    return inputs


def _weigh_points(inputs: CreditInputs, references: Sequence[Row]) -> Signal:
    """Weights from the points at which siblings part, in place of GRPO's, which are one."""
    rollout = inputs.rollout
    row = next(row for row in references if row["task"] == rollout.task)
    return Signal(credit_of_points(rollout, row, inputs.advantage))


def build_row(number: int, encoded: EncodedGroups, references: Sequence[Row]) -> StepMetrics:
    """The row of a batch. Nothing was played in it, and nothing moved."""
    rollouts = [rollout for group in encoded.groups for rollout in group.rollouts]
    causes = Counter(str(row["cause"]).partition(":")[0] for row in references if row["cause"])
    written = sum("text" in row for row in references)
    return StepMetrics(
        step=number,
        tasks=len(encoded.groups),
        kept=len(encoded.groups),
        mixed=len(encoded.groups),
        rollouts=len(rollouts),
        tokens_sampled=sum(rollout.num_policy_tokens for rollout in rollouts),
        reward=divide_or_none(sum(rollout.reward for rollout in rollouts), len(rollouts)),
        success=divide_or_none(sum(rollout.success for rollout in rollouts), len(rollouts)),
        calls=sum(len(rollout.calls) for rollout in rollouts),
        malformed_turns=sum(bool(turn.malformed) for rollout in rollouts for turn in rollout.turns),
        endings=dict(Counter(str(rollout.end_reason) for rollout in rollouts)),
        reference=ReferenceMetrics(groups=len(references), written=written, causes=dict(causes.most_common())),
    )


def _with_places(group: Group, encoded: EncodedGroups) -> Group:
    """The group with the place of each rollout in the files, in its task's row."""
    places = {str(rollout.sibling): Path(encoded.places[rollout.name]).name for rollout in group.rollouts}
    return replace(group, task=replace(group.task, row={"from": places}))
