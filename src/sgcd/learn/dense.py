"""From kept siblings to a gradient: what each rollout deserves is decided in the very pass that it is learnt in."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from sgcd.learn.clock import Clock
from sgcd.learn.contrasted import references
from sgcd.learn.crediting import Credited, Crediting
from sgcd.learn.gradient import Gradient
from sgcd.learn.initial import Initial
from sgcd.learn.ledger import ledger, overlap
from sgcd.learn.living import Living, Plan
from sgcd.learn.referring import Referring
from sgcd.learn.student import score
from sgcd.learn.teaching import Taught, Teaching
from sgcd.records import Floats, Siblings


class Dense:
    """Knows of the method only what it needs: nothing, or features under a reference."""

    def __init__(self, plan: Plan, living: Living, clock: Clock) -> None:
        self._plan = plan
        self._living = living
        self._clock = clock
        self._model: Any = living.policy.model

    async def of(
        self,
        step: int,
        groups: Sequence[Siblings],
        referring: Referring,
        gradient: Gradient,
        initial: Initial | None = None,
    ) -> Credited:
        """Each group is taught, credited and added to the gradient while the writers of the next are waited for."""
        needs, clock, done = self._living.method.needs, self._clock, Credited()
        divergence = needs.divergence if needs else "reverse_kl"
        async with Teaching(step, groups, referring, self._plan, self._living, clock) as teaching:
            with clock.phase("reference") if needs else nullcontext():
                if needs and needs.whole:
                    await self._calibrate([taught async for taught in teaching.taught()])
                async for taught in teaching.taught():
                    start = await self._initial(taught.group, initial)
                    crediting = Crediting(taught, self._living.method, self._plan.surrogate, start, clock)
                    given = taught.group.rollouts, crediting, taught.lessons, divergence
                    await clock.think("training", gradient.add, *given)
                    crediting.into(done)
        with clock.phase("credit"):
            if needs:
                done.told = self._told(done, needs.weighs, teaching.shuffled)
        return done

    async def _initial(self, group: Siblings, initial: Initial | None) -> list[Floats] | None:
        """What the policy said as the run began, where the surrogate has a KL term."""
        if initial is None:
            return None
        scoring = self._plan.scoring
        how = self._plan.sampler.temperature, scoring.tokens, scoring.bytes
        return await self._clock.think("scoring", initial.logps, group.rollouts, *how)

    async def _calibrate(self, whole: Sequence[Taught]) -> None:
        """A pass of the student by itself, so that the method sees a batch before any rollout is credited."""
        await self._clock.think("scoring", self._look, whole)

    def _look(self, whole: Sequence[Taught]) -> None:
        method, scoring, heat = self._living.method, self._plan.scoring, self._plan.sampler.temperature
        assert method.needs is not None
        batch: list[Any] = []
        for taught in whole:
            how = heat, scoring.tokens, method.needs.divergence, scoring.bytes
            features = score(self._model, taught.group.rollouts, taught.lessons[:1], *how).features[0]
            batch += [(s.rollout, f, s.creditable) for s, f in zip(taught.seen, features, strict=True) if f]
        method.calibrate(batch)

    def _told(self, done: Credited, weighs: bool, shuffled: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"reference": references(done.referred, done.seen)}
        told["credit"] = ledger(done.deserved, weighs)
        told["credit"]["method"] = self._living.method.state()
        if shuffled:
            told["credit"]["shuffled"] = overlap(done.deserved)
        return told
