"""The trainer: gather siblings, score, ask the method what they deserve, move the policy, record, validate, save."""

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from sgcd.act.siblings import Gathered, Played, gather, play_groups
from sgcd.errors import FolderError
from sgcd.files import SCHEMA, Row, whole_folder
from sgcd.learn import checkpoint
from sgcd.learn.checkpoint import Best, State
from sgcd.learn.clock import Clock, peak_memory, think
from sgcd.learn.dense import Dense
from sgcd.learn.figures import all_groups, figures
from sgcd.learn.gradient import Gradient
from sgcd.learn.initial import Initial
from sgcd.learn.living import Living, Observer, Plan
from sgcd.learn.policy import save
from sgcd.learn.referring import Referring
from sgcd.learn.scoring import gap
from sgcd.learn.update import Update, optimizer_of, rate, update
from sgcd.learn.watch import Watch, foreign
from sgcd.measure import health
from sgcd.measure.evaluate import evaluate, held_out
from sgcd.measure.summary import summarise
from sgcd.records import Siblings

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
        self.initial: Initial | None = None
        self.clock = Clock(living.thread, observer.on_phase)
        self.dense = Dense(plan, living, self.clock)
        self.state = State()
        self.recent: list[Row] = []
        """The newest rows of metrics, as many as health judges together."""

    async def run(self) -> Trained:
        """From the newest checkpoint, or from the start, to the plan's last step."""
        async with self.living.opened():
            return await self._run()

    async def _run(self) -> Trained:
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
        return await think(self.living.thread, work, *given)

    # -- one step -----------------------------------------------------------------------------------------------------

    async def _step(self, step: int) -> None:
        async with Referring(self.living.contrast if self.living.method.needs else None) as referring:
            with self.clock.phase("sampling"):
                gathered = await self._gather(step, referring)
            with self.clock.phase("saving"):
                groups = all_groups(gathered)
                kept = [index < len(gathered.kept) for index in range(len(groups))]
                self.folder.write_rollouts(step, groups, kept)
            learnt = await self._learn(step, gathered.kept, referring)
        self.state = replace(self.state, step=step, cursor=gathered.cursor, method=self.living.method.state())
        await self._validate()
        row = {"schema": SCHEMA, "step": step, **figures(gathered), **learnt, "peak_memory": peak_memory()}
        row["invalid"] = health.verdict([*self.recent, row], step == self.plan.steps)
        row |= self.living.asked()
        row["seconds"] = self.clock.split()
        self.folder.append_metrics(row)
        self.recent = [*self.recent, row][-health.WINDOW :]
        self.observer.on_step(row)
        await self._save()

    async def _gather(self, step: int, referring: Referring) -> Gathered:
        living, plan = self.living, self.plan
        size, limits = plan.siblings.size, plan.siblings.limits

        async def play(tasks: Sequence[Any]) -> Played:
            chat = living.policy.chat
            given = (size, living.stage, chat, living.sampler, limits, plan.seed, step)
            cohorts = play_groups(tasks, *given, whole=lambda group: referring.ask([group]))
            async with aclosing(cohorts):
                async for groups in cohorts:
                    yield groups

        return await gather(living.stage.splits["train"], self.state.cursor, plan.siblings, plan.seed, play)

    async def _learn(self, step: int, groups: Sequence[Siblings], referring: Referring) -> Row:
        """Score what was kept, ask the method, and move the policy. Without a mixed group there is nothing to learn."""
        plan, living = self.plan, self.living
        if not groups:
            nothing = Update(rate(plan.optimizer, step), skipped=NO_MIXED)
            return {**asdict(nothing), "sampler_gap_mean": None, "sampler_gap_max": None, "foreign": 0, "in_graph": 0}
        kept = [rollout for group in groups for rollout in group.rollouts]
        count = sum(rollout.written for rollout in kept)
        how = plan.surrogate, plan.sampler.temperature, plan.optimizer.tokens, count, plan.scoring.bytes
        gradient = Gradient(self.model, *how)
        dense = await self.dense.of(step, groups, referring, gradient, self.initial)
        moved = await self.clock.think("training", update, self.optimizer, gradient, plan.optimizer, step)
        with self.clock.phase("saving"):
            self.folder.write_credit(step, {each.rollout.name: each.scored for each in dense.deserved})
            if dense.referred:
                self.folder.write_references(step, [told.plain() for told in dense.referred])
        mean, largest = gap(kept, dense.logp)
        return {
            **asdict(moved),
            "sampler_gap_mean": mean,
            "sampler_gap_max": largest,
            "foreign": sum(foreign(rollout, living.policy.chat) for rollout in kept),
            "in_graph": self.watch.others(kept),
            **dense.told,
        }

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
            self.initial = Initial(self.model)
        self.watch = Watch(self.model)
        self.optimizer = optimizer_of(self.model, self.plan.optimizer)
        steps = self.folder.checkpoints()
        if steps and steps[-1] > self.plan.steps:
            raise FolderError(
                f"{self.folder.path}: this run has done {steps[-1]} steps already, expected steps={steps[-1]} or more, "
                f"got steps={self.plan.steps}"
            )
        self.state = checkpoint.restore(self.folder, self.living.policy, self.optimizer) or State()
        self.living.method.restore(self.state.method)
        self.folder.rewind(self.state.step if steps else -1)
        self.recent = self.folder.metrics()[-health.WINDOW :]
        checkpoint.place_best(self.folder, self.state)

    async def _save(self) -> None:
        """Every so often, after the last step, and whenever the policy is the best so far."""
        step, best = self.state.step, self.state.best
        new_best = best is not None and best.step == step
        if step % self.plan.checkpoint.every == 0 or step == self.plan.steps or new_best:
            with self.clock.phase("saving"):
                await self._think(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        checkpoint.save_checkpoint(self.folder, self.living.policy, self.optimizer, self.state, self.living.told)
        checkpoint.place_best(self.folder, self.state)
        checkpoint.retain(self.folder, self.plan.checkpoint.keep)

    def _deploy(self) -> None:
        """The last step's policy, as anyone would load it."""
        with whole_folder(self.folder.policy_path) as place:
            save(self.living.policy, place, {"steps": self.state.step, "seed": self.plan.seed, **self.living.told})
            (place / TRAINED).write_text(json.dumps({"schema": SCHEMA, "step": self.state.step}) + "\n")


def deployed(living: Living) -> int | None:
    """The step of the policy that lies in the run's folder; None when there is none."""
    told = living.folder.policy_path / TRAINED
    return json.loads(told.read_text())["step"] if told.exists() else None
