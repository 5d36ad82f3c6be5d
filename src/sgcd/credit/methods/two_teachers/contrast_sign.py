"""Contrast with a sign: more weight where own rather than exchanged reference moves a token as the advantage does.

    c_t = log q(y_t | own reference) - log q(y_t | exchanged reference)
    W_t = low + (high - low) clip(sign(A) c_t / saturation, 0, 1) where the student is undecided, low elsewhere

The source is this project. It is the contrast pair, read with the verdict: in a success what the own reference makes
likelier, in a failure what it makes less likely. So it selects what the teacher prefers, and `control: permuted` is the
control to run. Defaults: undecided from an entropy of .1 nat on, weights in [1, 2]; a full share at 1 nat is a guess.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.gap_settings import ContrastSignSettings
from sgcd.credit.methods import CreditInputs, MethodFacts
from sgcd.credit.methods.two_teachers import SwappedContrast
from sgcd.records import Floats


class ContrastSign(SwappedContrast[ContrastSignSettings]):
    facts = MethodFacts(
        "log-ratio of two teachers, signed by the advantage",
        "this project",
        "float64 formula",
        teacher="policy with both references",
        reads_direction=True,
    )

    def contrast_of(self, gap: Floats, inputs: CreditInputs) -> NDArray[Any]:
        return np.sign(inputs.advantage) * np.where(np.isfinite(gap), gap, 0)
