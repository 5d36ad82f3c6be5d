"""What methods share that pull by the log-ratio of the sampled tokens."""

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods import CreditInputs, Needs, StatelessMethod, gap_teacher, signal_pull
from sgcd.credit.segments import Doubles
from sgcd.credit.signal_settings import GapSettings
from sgcd.credit_records import Signal

Own = TypeVar("Own", bound=GapSettings)
"""The settings of one method."""


class GapMethod(StatelessMethod, Generic[Own]):
    """A pull from log q(y_t) - log p(y_t), q being the teacher that the recipe names."""

    reward_coefficient: float = 1.0
    """Factor of the advantage over siblings."""

    def __init__(self, settings: Own, k: int = 1) -> None:
        self.settings = settings
        self.teacher = gap_teacher(settings)
        self.needs = Needs(
            k,
            "reverse_kl",
            teachers=(self.teacher,),
            requires_reading=settings.require_reading,
            can_change_weights=False,
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No pull without features, nor where the gap is no number."""
        features, pull = inputs.features.get(self.teacher), None
        if features is not None and self.settings.coefficient:
            gap = features.teacher_logprob_gap.astype(np.float64)
            gap[~np.isfinite(gap)] = np.nan
            pull = self.settings.coefficient * self.pull_of(gap, inputs)
        return signal_pull(inputs, pull, self.reward_coefficient)

    def pull_of(self, gap: Doubles, inputs: CreditInputs) -> NDArray[np.float64]:
        """The pull of each token before the coefficient: here the gap itself, NaN where it is no number."""
        return gap
