"""Contrast pair: more weight where the own reference and the one with success and failure exchanged part.

    c_t = log q(y_t | own reference) - log q(y_t | exchanged reference)
    W_t = low + (high - low) min(1, |c_t| / saturation) where the student is undecided, low elsewhere

The source is this project. Both texts hold the same sentences, so their words, length and place cancel, and what is
left is what the policy reads of success and failure. Defaults: undecided from an entropy of .1 nat on, weights in
[1, 2]; a full share at 1 nat is a guess.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.gap_settings import ContrastPairSettings
from sgcd.credit.methods import CreditInputs, MethodFacts
from sgcd.credit.methods.two_teachers import SwappedContrast
from sgcd.records import Floats


class ContrastPair(SwappedContrast[ContrastPairSettings]):
    facts = MethodFacts(
        "log-ratio of two teachers", "this project", "float64 formula", teacher="policy with both references"
    )

    def contrast_of(self, gap: Floats, inputs: CreditInputs) -> NDArray[Any]:
        return np.abs(gap)
