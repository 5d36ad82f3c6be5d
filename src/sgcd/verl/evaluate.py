"""The evaluation on held-out tasks during training: the same trials as the local engine's, played by verl's server."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sgcd.act.environment import TaskSuite
from sgcd.errors import EngineError
from sgcd.measure.evaluate import Trial, held_out_tasks, list_trials, split_into_cohorts, trial_row
from sgcd.measure.trial_rows import TrialRow
from sgcd.recipe.schema import Recipe
from sgcd.verl.collect import TRAIN, play_rows
from sgcd.verl.hooks import tq
from sgcd.verl.queue import take_rollouts


def list_recipe_trials(recipe: Recipe, task_suite: TaskSuite) -> list[Trial]:
    """The trials of one evaluation, in the order of their rows."""
    return list_trials(held_out_tasks(task_suite, recipe.evaluation), recipe.evaluation)


async def evaluate_on_verl(manager: Any, recipe: Recipe, trials: Sequence[Trial], *, step: int) -> list[TrialRow]:
    """Play trials with the weights that verl's servers have; at most `sampler.slots` at a time."""
    rows: list[TrialRow] = []
    for cohort in split_into_cohorts(trials, recipe.sampler.slots):
        uids = {uuid4().hex: trial for trial in cohort}
        fields = {uid: trial_fields(trial) for uid, trial in uids.items()}
        try:
            async for _ in play_rows(manager, fields, step):
                pass
        except EngineError as error:
            raise EngineError(f"{error} (it played the evaluation of step {step})") from None
        rollouts = await asyncio.to_thread(take_rollouts, [f"{uid}_0" for uid in uids])
        await asyncio.to_thread(tq.kv_clear, keys=list(uids), partition_id=TRAIN)
        rows += [
            trial_row(trial, rollout, recipe.evaluation, seed=recipe.seed, step=step)
            for trial, rollout in zip(cohort, rollouts, strict=True)
        ]
    return rows


def trial_fields(trial: Trial) -> dict[str, Any]:
    """A trial as a row of verl's. `__rollout_n__` is verl's own field: rollouts of this row, one here."""
    return {
        "task_id": trial.task.id,
        "mode": trial.mode,
        "temperature": trial.temperature,
        "trial": trial.number,
        "__rollout_n__": 1,
    }
