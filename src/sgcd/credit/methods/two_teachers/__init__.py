"""What methods share that compare two teachers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.gap_settings import TwoTeacherSettings
from sgcd.credit.methods import CreditInputs, weighted_credit
from sgcd.credit_records import Features, Signal


def weighted_where_undecided(
    inputs: CreditInputs, features: Features | None, share: NDArray[Any], settings: TwoTeacherSettings
) -> Signal:
    """Credit by each token's share where the student is undecided; no token has one without features."""
    undecided = features.undecided_mask(settings.min_entropy) if features else np.zeros(len(share), np.bool_)
    return weighted_credit(inputs, np.where(undecided, share, 0.0), settings)
