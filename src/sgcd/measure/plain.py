"""Held-out tasks played with a model that is no policy: the same trials, seeds and rows."""

import asyncio

from sgcd.act.environment import Stage
from sgcd.act.plain import Player, play_plain
from sgcd.act.settings import Limits
from sgcd.endpoint.ask import Endpoint
from sgcd.measure.evaluate import Trial, held_out, plan, row_of, seed_of_trial
from sgcd.measure.rows import Row
from sgcd.measure.settings import EvaluationSettings, ModelSettings
from sgcd.records import Rollout


async def evaluate_model(
    stage: Stage,
    endpoint: Endpoint,
    model: ModelSettings,
    limits: Limits,
    settings: EvaluationSettings,
    seed: int,
) -> list[tuple[Row, Rollout]]:
    """Every trial of the held-out tasks, in the order of a policy's evaluation, and what was said in each.

    As many are played at once as calls may be in flight.
    """
    room = asyncio.Semaphore(model.concurrency)

    async def one(trial: Trial) -> tuple[Row, Rollout]:
        temperature = None if model.temperature is None else trial.temperature
        player = Player(endpoint, temperature, seed_of_trial(trial, settings, seed))
        async with room:
            rollout = await play_plain(trial.task, stage.environment(), player, limits, trial.number)
        row = row_of(trial, rollout, settings, seed, 0)
        return {**row, "model": model.model, "tokens": player.written}, rollout

    return list(await asyncio.gather(*(one(trial) for trial in plan(held_out(stage, settings), settings))))
