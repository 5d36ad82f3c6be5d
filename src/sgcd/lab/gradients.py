"""How much of a policy gradient points the same way from batch to batch: the cosine of batches' gradients, in pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.lab.arms import Judged
from sgcd.lab.shown import TOKENS
from sgcd.learn.batch import Example
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.update import accumulate
from sgcd.measure.statistics import FEWEST, LEVEL, Estimate, Numbers, stats
from sgcd.records import Floats

Gradients = NDArray[np.float32]
"""One row for each batch, one column for each parameter."""


def gradients(model: Any, batches: Sequence[Sequence[Example]]) -> Gradients:
    """The gradient of each batch's loss as training has it (clipped surrogate, token-mean), at the same weights."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows: list[Gradients] = []
    for batch in batches:
        model.zero_grad(set_to_none=True)
        accumulate(model, batch, SurrogateSettings(), 1.0, TOKENS)
        rows.append(np.concatenate([parameter.grad.numpy().ravel() for parameter in parameters]))
    model.zero_grad(set_to_none=True)
    return np.stack(rows)


def agreement(rows: Gradients) -> float:
    """Mean cosine over the pairs of batches; a batch without a gradient agrees with nothing: 0."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1)
    gram = unit @ unit.T
    return float(gram[np.triu_indices(len(rows), 1)].mean())


def scaled(rows: Gradients) -> Gradients:
    """Each parameter divided by its root mean square over the batches, as Adam does in the long run."""
    size = np.sqrt(np.square(rows, dtype=np.float64).mean(axis=0)).astype(np.float32)
    size[size == 0] = 1
    return rows / size


def left_out(rows: Gradients, adam: bool) -> Numbers:
    """The agreement of all batches, then without each of them in turn; the scale is found anew every time."""

    def of(some: Gradients) -> float:
        return agreement(scaled(some) if adam else some)

    return np.array([of(rows), *(of(np.delete(rows, index, axis=0)) for index in range(len(rows)))])


def jackknife(values: Numbers) -> Estimate:
    """A figure of all n batches, `values[0]`, with the jackknife's interval from the n figures that leave one out.

    value +- t(n - 1) sqrt((n - 1) / n sum of squared deviations). Differences of figures go in the same way.
    """
    value, without = float(values[0]), values[1:]
    count = len(without)
    if count < FEWEST:
        return Estimate(value, reason=f"too few batches for an interval: {count}")
    error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    half = float(stats().t.ppf((1 + LEVEL) / 2, count - 1)) * float(error)
    return Estimate(value, value - half, value + half, f"jackknife over {count} batches")


def signal_to_noise(
    model: Any, judged: Sequence[Judged], weights: Mapping[str, Sequence[Floats]], size: int
) -> dict[str, Any]:
    """Agreement of batches of `size` groups under each arm's weights, raw and scaled, and how far it is from GRPO's."""
    batches: dict[int, list[int]] = {}
    for index, one in enumerate(judged):
        batches.setdefault(one.group // size, []).append(index)
    raw, adam = dict[str, Numbers](), dict[str, Numbers]()
    for name, arm in weights.items():
        examples = [
            Example(one.rollout, (np.float32(one.advantage) * weight).astype(np.float32), one.shown.logp)
            for one, weight in zip(judged, arm, strict=True)
        ]
        rows = gradients(model, [[examples[index] for index in batch] for batch in batches.values()])
        raw[name], adam[name] = left_out(rows, adam=False), left_out(rows, adam=True)
    return {"batches": len(batches), "raw": _against_grpo(raw), "scaled": _against_grpo(adam)}


def _against_grpo(values: Mapping[str, Numbers]) -> dict[str, Any]:
    return {
        name: {"agreement": jackknife(some).plain(), "less grpo": jackknife(some - values["grpo"]).plain()}
        for name, some in values.items()
    }
