"""Ways of weighting the same rollouts, side by side: the method, its extensions, their shuffled controls, the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgcd.credit.methods.sgcd import Explained, Sgcd
from sgcd.credit.settings import SegmentSettings
from sgcd.credit.settings import Sgcd as SgcdSettings
from sgcd.lab.shown import Shown
from sgcd.lab.truth import Truth
from sgcd.records import Flags, Floats, Rollout

FLOOR = 0.2
"""Of the weights that also attenuate."""
CAP = 2.0
"""What a decisive token weighs where the truth gives the weights."""
OWN, SHUFFLED = 0, 1
"""Which of the texts that a teacher was shown."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One rollout and all that is known of it."""

    rollout: Rollout
    group: int
    """Which siblings it is one of."""
    advantage: float
    shown: Shown
    truth: Truth

    @property
    def creditable(self) -> Flags:
        return self.truth.counted | ~self.rollout.mask


def explain(told: SgcdSettings, arm: int, judged: Sequence[Judged]) -> list[Explained]:
    """What the method says of each rollout when its teacher was shown text number `arm`."""
    method = Sgcd(told)
    return [method.explain(one.rollout, one.advantage, one.shown.features[arm], one.creditable) for one in judged]


def published(told: SgcdSettings) -> SgcdSettings:
    """The same method with the published rule for segments."""
    return told.model_copy(update={"segments": SegmentSettings()})


def weights(told: SgcdSettings, judged: Sequence[Judged]) -> dict[str, list[Floats]]:
    """A weight for each token of each rollout, under every arm.

    "decisive" is no method, since none may give a weight of zero: it says what is left without all other tokens.
    """

    def by(settings: SgcdSettings, arm: int) -> list[Floats]:
        return [one.signal.credit.weight for one in explain(settings, arm, judged)]

    def true(high: float, low: float) -> list[Floats]:
        return [np.where(one.truth.decisive, high, low).astype(np.float32) for one in judged]

    variants = {
        "sgcd": told,
        "sgcd published": published(told),
        "sgcd absolute": told.model_copy(update={"segments": told.segments.model_copy(update={"scale": "absolute"})}),
        "sgcd floor": told.model_copy(update={"floor": FLOOR}),
    }
    return {
        "grpo": [np.ones(len(one.rollout.response), np.float32) for one in judged],
        **{name: by(settings, OWN) for name, settings in variants.items()},
        **{name.replace("sgcd", "shuffled"): by(settings, SHUFFLED) for name, settings in variants.items()},
        "oracle": true(CAP, 1.0),
        "oracle floor": true(CAP, FLOOR),
        "decisive": true(1.0, 0.0),
    }
