"""From kept siblings to a gradient: what each rollout deserves is decided in the very pass that it is learnt in."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from sgcd.contrast.refer import Referred
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import Method
from sgcd.learn.batch import Example
from sgcd.learn.clock import Clock
from sgcd.learn.contrasted import Contrasted, references
from sgcd.learn.gradient import Gradient
from sgcd.learn.initial import Initial
from sgcd.learn.ledger import Deserved, ledger, overlap
from sgcd.learn.living import Living, Plan
from sgcd.learn.referring import Referring
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.student import Marks, score
from sgcd.learn.teaching import Taught, Teaching
from sgcd.records import Floats, Siblings


@dataclass(slots=True)
class Credited:
    """What a batch deserves, one entry for each rollout, and the log-probabilities that its ratios start from."""

    deserved: list[Deserved] = field(default_factory=list[Deserved])
    logp: list[Floats] = field(default_factory=list[Floats])
    seen: list[Contrasted] = field(default_factory=list[Contrasted])
    referred: list[Referred] = field(default_factory=list[Referred])
    """One for each group; empty for a method that needs no reference."""
    told: dict[str, Any] = field(default_factory=dict[str, Any])
    """For the metrics; empty as well."""


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
        """Each group is taught, judged and added to the gradient while the writers of the next are waited for."""
        needs, clock, done = self._living.method.needs, self._clock, Credited()
        divergence = needs.divergence if needs else "reverse_kl"
        async with Teaching(step, groups, referring, self._plan, self._living, clock) as teaching:
            with clock.phase("reference") if needs else nullcontext():
                if needs and needs.whole:
                    await self._calibrate([taught async for taught in teaching.taught()])
                async for taught in teaching.taught():
                    start = await self._initial(taught.group, initial)
                    judged = Judged(taught, self._living.method, self._plan.surrogate, start, clock)
                    given = taught.group.rollouts, judged, taught.lessons, divergence
                    await clock.think("training", gradient.add, *given)
                    judged.into(done)
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
        """A pass of the student by itself, so that the method sees a batch before any rollout is judged."""
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


class Judged:
    """The rollouts of one group, as they are judged: called with some of them after the other by the training pass."""

    def __init__(
        self,
        taught: Taught,
        method: Method,
        trust: SurrogateSettings,
        initial: Sequence[Floats] | None,
        clock: Clock,
    ) -> None:
        self._taught = taught
        self._method = method
        self._initial = initial
        self._clock = clock
        rewards = [rollout.reward for rollout in taught.group.rollouts]
        self._advantage = advantages(rewards, trust.baseline, trust.std)
        self._deserved: dict[int, Deserved] = {}
        self._logp: dict[int, Floats] = {}

    def __call__(self, part: Sequence[int], marks: Marks) -> list[Example]:
        """The advantage within the group, and what the method makes of it for each token."""
        with self._clock.part("credit"):
            return [self._one(index, place, marks) for place, index in enumerate(part)]

    def _one(self, index: int, place: int, marks: Marks) -> Example:
        seen, advantage = self._taught.seen[index], float(self._advantage[index])
        own, other = [*(features[place] for features in marks.features), None, None][:2]
        explained = self._method.explain(seen.rollout, advantage, own, seen.creditable)
        shuffled = self._method.explain(seen.rollout, advantage, other, seen.creditable) if other else None
        self._deserved[index] = Deserved(seen.rollout, explained, own, seen.creditable, seen.without, shuffled)
        self._logp[index] = logp = marks.logp[place]
        initial = None if self._initial is None else self._initial[index]
        return Example(seen.rollout, explained.signal.credit.token_advantage, logp, initial)

    def into(self, done: Credited) -> None:
        """Add what was found, in the order of the rollouts."""
        order = range(len(self._taught.group.rollouts))
        done.deserved += [self._deserved[index] for index in order]
        done.logp += [self._logp[index] for index in order]
        done.seen += self._taught.seen
        done.referred += [self._taught.referred] if self._taught.referred else []
