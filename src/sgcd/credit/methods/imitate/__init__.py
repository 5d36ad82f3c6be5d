"""What methods share that imitate a teacher, by a divergence in the loss."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods import CreditInputs, signal_pull
from sgcd.credit.signal_settings import ImitationSettings
from sgcd.credit_records import Imitation, Signal, Teacher


def signal_imitation(
    inputs: CreditInputs,
    teacher: Teacher,
    settings: ImitationSettings,
    *,
    reward_coefficient: float = 1.0,
    weight: NDArray[Any] | float = 1.0,
) -> Signal:
    """Credit with weight one, and an imitation on creditable tokens where the teacher has read the rollout."""
    signal = signal_pull(inputs, None, reward_coefficient)
    tokens = np.where(inputs.creditable_tokens, weight, 0).astype(np.float32)
    if teacher not in inputs.features or not settings.coefficient or not tokens.any():
        return signal
    imitate = Imitation(teacher, settings.coefficient, tokens, settings.divergence)
    return replace(signal, imitate=imitate)
