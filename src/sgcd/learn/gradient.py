"""The gradient of one batch's loss, added up rollouts by rollouts, and the numbers that go with it.

What a rollout deserves is asked for when its log-probabilities are there: one forward pass serves the ratio, the method
and the gradient. That holds as long as a batch has one update; the ratio starts from the pass itself and is one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from sgcd.credit.settings import Divergence
from sgcd.learn.batch import Example, cut, flat
from sgcd.learn.rows import ROOM
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.student import Lessons, Marks, asked
from sgcd.learn.surrogate import surrogate
from sgcd.records import Rollout

Judge = Callable[[Sequence[int], Marks], Sequence[Example]]
"""What some of the rollouts, by their places, are to be learnt as, given what the student's pass says of them."""


@dataclass(slots=True)
class Gradient:
    """Lies in the model; here are the sums over the tokens that it was made of."""

    model: Any
    trust: SurrogateSettings
    temperature: float
    tokens: int
    """In one micro-batch, padded; nothing depends on it."""
    count: int
    """Written tokens of the whole batch: what the loss is a mean over."""
    room: int = ROOM
    loss: float = 0.0
    clipped: float = 0.0
    ratio: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0

    def add(
        self, rollouts: Sequence[Rollout], judge: Judge, lessons: Lessons = (), divergence: Divergence = "reverse_kl"
    ) -> None:
        """These rollouts' part of the loss, one micro-batch after the other."""
        with recomputing(self.model):
            for part in cut(rollouts, self.tokens):
                there = [[teacher[index] for index in part] for teacher in lessons]
                self._add([rollouts[index] for index in part], part, judge, there, divergence)

    def _add(
        self, some: Sequence[Rollout], part: Sequence[int], judge: Judge, lessons: Lessons, divergence: Divergence
    ) -> None:
        logp, entropy, marks = asked(self.model, some, lessons, self.temperature, divergence, self.room)
        chosen = judge(part, marks)
        if not logp.numel():
            return  # nothing was written
        old = flat([example.old_logp for example in chosen], some).to(logp.device)
        advantage = flat([example.advantage for example in chosen], some).to(logp.device)
        initial = [example.initial_logp for example in chosen if example.initial_logp is not None]
        initial_logp = flat(initial, some).to(logp.device) if initial else None
        micro = surrogate(logp, old, advantage, initial_logp, self.count, self.trust)
        micro.loss.backward()
        self.loss += float(micro.loss.detach())
        self.entropy += float(entropy.sum())
        self.clipped += micro.clipped
        self.ratio += micro.ratio
        self.kl += micro.kl


def ready(examples: Sequence[Example]) -> tuple[list[Rollout], Judge]:
    """Rollouts of which it is known beforehand what they are to be learnt as."""
    return [example.rollout for example in examples], lambda part, _: [examples[index] for index in part]


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """Let layers be computed again in the backward pass, where the policy is loaded so.

    Transformers does that in training mode alone. The layers are put into it, their dropout is not.
    """
    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    layers = [each for each in layers if each.gradient_checkpointing]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
