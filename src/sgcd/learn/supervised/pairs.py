"""Pairs that teach to read references: a success after its siblings' own one, a failure after the exchanged one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sgcd.contrast.choose import split_by_outcome
from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.contrast.writers.llm import LanguageModelWriter
from sgcd.errors import DataError, RecipeError
from sgcd.learn.scoring.teacher import with_teacher_prompt
from sgcd.learn.scoring.teacher_inputs import build_teacher_input
from sgcd.records import Flags, Group, Reference, Rollout
from sgcd.storage.run_folder import RunFolder

Pair = tuple[Rollout, Rollout]
"""A success behind a prompt with the reference, and a failure behind one with success and failure exchanged."""


@dataclass(slots=True)
class ReadingPairs:
    """The pairs of some runs, and how many mixed groups gave none, by cause."""

    pairs: list[Pair] = field(default_factory=list[Pair])
    num_groups: int = 0
    """Groups that gave a pair."""
    left_out: dict[str, int] = field(default_factory=dict[str, int])

    def add_group(self, pairs: Sequence[Pair], cause: str) -> None:
        self.pairs += pairs
        self.num_groups += bool(pairs)
        if not pairs:
            self.left_out[cause] = self.left_out.get(cause, 0) + 1


async def build_pairs(groups: Iterable[Group], builder: ReferenceBuilder, window: int) -> ReadingPairs:
    """The pairs of all groups whose siblings differ; a rollout is in at most one of them."""
    groups = [*groups]
    if groups and isinstance(builder.writer, LanguageModelWriter):
        raise RecipeError(
            "supervised.pairs: references of pairs are written without a model; expected reference.writer.name of "
            "built-in or trace, got llm"
        )
    found = ReadingPairs()
    for group in groups:
        sides = split_by_outcome(group.rollouts, builder.min_reward_gap)
        if sides:
            result = await builder.build(group, with_swapped=True)
            cause = (result.cause or result.swapped_cause).partition(":")[0] or f"longer than {window} tokens"
            found.add_group(_pair_siblings(sides[0], result, builder, window), cause)
    return found


def _pair_siblings(
    siblings: Sequence[Rollout], result: ReferenceResult, builder: ReferenceBuilder, window: int
) -> list[Pair]:
    def read(rollouts: Sequence[Rollout], reference: Reference | None) -> list[Rollout]:
        """The rollouts behind a prompt with the reference, as a teacher reads them; only those that fit."""
        inputs = [build_teacher_input(one, reference, _no_credit(one), builder, window) for one in rollouts]
        return [with_teacher_prompt(one) for one in inputs if one.input_ids is not None]

    if result.reference is None or result.swapped is None:
        return []
    successes = read([one for one in siblings if one.success], result.reference)
    failures = read([one for one in siblings if not one.success], result.swapped)
    return [*zip(successes, failures, strict=False)]


def _no_credit(rollout: Rollout) -> Flags:
    """Nothing has credit in supervised training."""
    return rollout.response_mask & False


def find_rollout_files(runs: Sequence[str]) -> list[Path]:
    """The files with the rollouts of the runs that a recipe names."""
    files: list[Path] = []
    for run in runs:
        steps = RunFolder.open(Path(run)).steps_with_rollouts()
        if not steps:
            raise DataError(f"supervised.pairs: {run} has no rollouts; expected the folder of a run of sgcd train")
        files += sorted((Path(run) / "rollouts").glob("[0-9]*"))
    return files


def read_groups(runs: Sequence[str], template: str) -> list[Group]:
    """All groups that the runs played. Their tokens are read as they are, so they must be those of this policy."""
    groups: list[Group] = []
    for run in runs:
        folder = RunFolder.open(Path(run))
        if folder.facts["policy"]["template"] != template:
            raise DataError(
                f"supervised.pairs: {run} was played with another chat template than this policy's; expected a run "
                "that began from this policy, or from one with the same tokenizer and template"
            )
        groups += [stored.group for step in folder.steps_with_rollouts() for stored in folder.read_rollouts(step)]
    return groups
