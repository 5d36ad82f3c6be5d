"""The trainer: gather siblings, score, ask the method what they deserve, move the policy, record, validate, save."""

import asyncio
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from sgcd.act.siblings import Gathered, gather, play_groups
from sgcd.credit.advantage import advantages
from sgcd.errors import FolderError
from sgcd.files import SCHEMA, Row, whole_folder
from sgcd.learn import checkpoint
from sgcd.learn.batch import Example
from sgcd.learn.checkpoint import Best, State
from sgcd.learn.clock import Clock, peak_memory
from sgcd.learn.figures import all_groups, figures
from sgcd.learn.living import Living, Observer, Plan
from sgcd.learn.policy import save
from sgcd.learn.scoring import gap, logps
from sgcd.learn.update import Update, optimizer_of, rate, update
from sgcd.measure.evaluate import evaluate, held_out
from sgcd.measure.summary import summarise
from sgcd.records import Credit, Floats, Rollout, Scored, Siblings

T = TypeVar("T")
NO_MIXED = "no mixed group"
TRAINED = "trained.json"
"""Stands beside the policy that comes out, and says after which step."""


@dataclass(frozen=True, slots=True)
class Trained:
    """How far a run is, and how many steps of that were done by this call."""

    step: int
    now: int


class Trainer:
    """One asyncio loop around one thread that owns the model; what it does is a function of the plan and the folder."""

    def __init__(self, plan: Plan, living: Living, observer: Observer) -> None:
        self.plan = plan
        self.living = living
        self.observer = observer
        self.folder = living.folder
        self.model: Any = living.policy.model
        self.initial: Any = None
        self.clock = Clock(living.thread, observer.on_phase)
        self.state = State()

    async def run(self) -> Trained:
        """From the newest checkpoint, or from the start, to the plan's last step."""
        await self._think(self._restore)
        start = self.state.step
        if not self.folder.checkpoints():
            await self._validate()
            await self._save()
        for step in range(start + 1, self.plan.steps + 1):
            await self._step(step)
        if deployed(self.living) != self.state.step:
            with self.clock.phase("saving"):
                await self._think(self._deploy)
        return Trained(self.state.step, self.state.step - start)

    async def _think(self, work: Callable[..., T], *given: Any) -> T:
        """Do something with the model, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self.living.thread, work, *given)

    # -- one step -----------------------------------------------------------------------------------------------------

    async def _step(self, step: int) -> None:
        with self.clock.phase("sampling"):
            gathered = await self._gather(step)
        with self.clock.phase("saving"):
            groups = all_groups(gathered)
            kept = [index < len(gathered.kept) for index in range(len(groups))]
            self.folder.write_rollouts(step, groups, kept)
        learnt = await self._learn(step, gathered)
        self.state = replace(self.state, step=step, cursor=gathered.cursor)
        await self._validate()
        row = {"schema": SCHEMA, "step": step, **figures(gathered), **learnt, "peak_memory": peak_memory()}
        row["seconds"] = self.clock.split()
        self.folder.append_metrics(row)
        self.observer.on_step(row)
        await self._save()

    async def _gather(self, step: int) -> Gathered:
        living, plan = self.living, self.plan
        size, limits = plan.siblings.size, plan.siblings.limits

        def play(tasks: Sequence[Any]) -> Any:
            return play_groups(tasks, size, living.stage, living.policy.chat, living.sampler, limits, plan.seed, step)

        return await gather(living.stage.splits["train"], self.state.cursor, plan.siblings, plan.seed, play)

    async def _learn(self, step: int, gathered: Gathered) -> Row:
        """Score what was kept, ask the method, and move the policy. Without a mixed group there is nothing to learn."""
        plan = self.plan
        if not gathered.kept:
            nothing = Update(rate(plan.optimizer, step), skipped=NO_MIXED)
            return {**asdict(nothing), "sampler_gap_mean": None, "sampler_gap_max": None}
        kept = [rollout for group in gathered.kept for rollout in group.rollouts]
        with self.clock.phase("scoring"):
            old = await self._score(self.model, kept)
            initial = None if self.initial is None else await self._score(self.initial, kept)
        with self.clock.phase("credit"):
            deserved = self._credit(gathered.kept)
            examples = [
                Example(rollout, credit.token_advantage, old[index], None if initial is None else initial[index])
                for index, (rollout, credit) in enumerate(zip(kept, deserved, strict=True))
            ]
        with self.clock.phase("training"):
            told = (examples, plan.surrogate, plan.optimizer, plan.sampler.temperature, step)
            moved = await self._think(update, self.model, self.optimizer, *told)
        with self.clock.phase("saving"):
            by_name = {rollout.name: Scored(credit) for rollout, credit in zip(kept, deserved, strict=True)}
            self.folder.write_credit(step, by_name)
        mean, largest = gap(kept, old)
        return {**asdict(moved), "sampler_gap_mean": mean, "sampler_gap_max": largest}

    async def _score(self, model: Any, rollouts: Sequence[Rollout]) -> list[Floats]:
        return await self._think(logps, model, rollouts, self.plan.sampler.temperature, self.plan.scoring.tokens)

    def _credit(self, groups: Sequence[Siblings]) -> list[Credit]:
        """Advantages within each group, and what the method makes of them for each token."""
        trust = self.plan.surrogate
        deserved: list[Credit] = []
        for group in groups:
            better = advantages([rollout.reward for rollout in group.rollouts], trust.baseline, trust.std)
            for rollout, advantage in zip(group.rollouts, better, strict=True):
                deserved.append(self.living.method.signal(rollout, float(advantage), None).credit)
        return deserved

    # -- held-out tasks -----------------------------------------------------------------------------------------------

    async def _validate(self) -> None:
        """Before the first step, every so often, and after the last; leaves no trace on training."""
        plan, living, step = self.plan, self.living, self.state.step
        due = step % plan.evaluation.every == 0 or step == plan.steps
        if not due or not held_out(living.stage, plan.evaluation):
            return
        with self.clock.phase("evaluation"):
            chat, limits = living.policy.chat, plan.siblings.limits
            rows = await evaluate(living.stage, chat, living.sampler, limits, plan.evaluation, plan.seed, step)
            if not rows:
                return
            self.folder.append_evaluation(rows)
            summary = summarise(rows)
        modes = summary["modes"]
        score = modes["sampled" if "sampled" in modes else "greedy"]["overall"]["value"]
        best = self.state.best
        if score is not None and (best is None or score > best.score):  # the first wins a tie
            self.state = replace(self.state, best=Best(step, score))
        self.observer.on_evaluation(summary)

    # -- going on -----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        self.model.eval()  # without dropout, log-probs before and after an update are of one distribution
        if self.plan.surrogate.kl > 0:
            self.initial = deepcopy(self.model).requires_grad_(False)
        self.optimizer = optimizer_of(self.model, self.plan.optimizer)
        steps = self.folder.checkpoints()
        if steps and steps[-1] > self.plan.steps:
            raise FolderError(
                f"{self.folder.path}: this run has done {steps[-1]} steps already, expected steps={steps[-1]} or more, "
                f"got steps={self.plan.steps}"
            )
        self.state = checkpoint.restore(self.folder, self.living.policy, self.optimizer) or State()
        self.folder.rewind(self.state.step if steps else -1)
        checkpoint.place_best(self.folder, self.state)

    async def _save(self) -> None:
        """Every so often, after the last step, and whenever the policy is the best so far."""
        step, best = self.state.step, self.state.best
        new_best = best is not None and best.step == step
        if step % self.plan.checkpoint.every == 0 or step == self.plan.steps or new_best:
            with self.clock.phase("saving"):
                await self._think(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        checkpoint.save_checkpoint(self.folder, self.living.policy, self.optimizer, self.state)
        checkpoint.place_best(self.folder, self.state)
        checkpoint.retain(self.folder, self.plan.checkpoint.keep)

    def _deploy(self) -> None:
        """The last step's policy, as anyone would load it."""
        with whole_folder(self.folder.policy_path) as place:
            save(self.living.policy, place, {"steps": self.state.step, "seed": self.plan.seed})
            (place / TRAINED).write_text(json.dumps({"schema": SCHEMA, "step": self.state.step}) + "\n")


def deployed(living: Living) -> int | None:
    """The step of the policy that lies in the run's folder; None when there is none."""
    told = living.folder.policy_path / TRAINED
    return json.loads(told.read_text())["step"] if told.exists() else None
