"""How much of a policy gradient points the same way from batch to batch: the cosine of batches' gradients, in pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.lab.arms import Judged
from sgcd.lab.shown import TOKENS
from sgcd.learn.batch import Example
from sgcd.learn.gradient import Gradient, ready
from sgcd.learn.settings import SurrogateSettings
from sgcd.measure.statistics import FEWEST, LEVEL, Estimate, Numbers, stats
from sgcd.records import Floats

Gradients = NDArray[np.float32]
"""One row for each group, one column for each parameter."""
Pairs = tuple[Numbers, Numbers]
"""Which groups are in the first batch of each pair, and which in the second: [pairs, groups], zeros and ones."""
BATCH = 4
"""Groups in a batch, where there are enough for two batches and one group to leave out."""
DRAWS = 20000


def signal_to_noise(
    model: Any, judged: Sequence[Judged], weights: Mapping[str, Sequence[Floats]], seed: int = 0
) -> dict[str, Any]:
    """Agreement of batches under each arm's weights, raw and scaled, and how far it is from GRPO's."""
    groups = sorted({one.group for one in judged})
    size = max(1, min(BATCH, (len(groups) - 1) // 2))
    pairs = draw(len(groups), size, np.random.default_rng(seed))
    raw, adam = dict[str, Numbers](), dict[str, Numbers]()
    for name, arm in weights.items():
        examples = [
            Example(one.rollout, (np.float32(one.advantage) * weight).astype(np.float32), one.shown.logp)
            for one, weight in zip(judged, arm, strict=True)
        ]
        rows = gradients(
            model, [[e for e, one in zip(examples, judged, strict=True) if one.group == g] for g in groups]
        )
        raw[name], adam[name] = left_out(rows, pairs), left_out(scaled(rows, size), pairs)
    return {"groups": len(groups), "batch": size, "raw": _against_grpo(raw), "scaled": _against_grpo(adam)}


def gradients(model: Any, groups: Sequence[Sequence[Example]]) -> Gradients:
    """Each group's sum of token gradients, as training has them (clipped surrogate): a batch's is their sum, scaled."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows: list[Gradients] = []
    for group in groups:
        model.zero_grad(set_to_none=True)
        written = sum(example.rollout.written for example in group)
        Gradient(model, SurrogateSettings(), 1.0, TOKENS, written).add(*ready(group))
        rows.append(written * np.concatenate([parameter.grad.numpy().ravel() for parameter in parameters]))
    model.zero_grad(set_to_none=True)
    return np.stack(rows)


def draw(groups: int, size: int, rng: np.random.Generator) -> Pairs:
    """Pairs of batches that share no group."""
    order = rng.permuted(np.tile(np.arange(groups), (DRAWS, 1)), axis=1)
    first, second = np.zeros((2, DRAWS, groups))
    np.put_along_axis(first, order[:, :size], 1, axis=1)
    np.put_along_axis(second, order[:, size : 2 * size], 1, axis=1)
    return first, second


def scaled(rows: Gradients, size: int) -> Gradients:
    """Each parameter divided by its root mean square over batches of `size` groups, as Adam does in the long run.

    E(sum of n)^2 = n E(s^2) + n (n - 1) (E s)^2 for independent s.
    """
    mean, square = rows.mean(axis=0), np.square(rows).mean(axis=0)
    root = np.sqrt(size * square + size * (size - 1) * np.square(mean))
    root[root == 0] = 1
    return rows / root


def left_out(rows: Gradients, pairs: Pairs) -> Numbers:
    """The mean cosine over all pairs of batches, then over those without each of the groups in turn.

    A batch without a gradient agrees with nothing: its cosine is 0.
    """
    gram = (rows @ rows.T).astype(np.float64)
    first, second = pairs
    inner = ((first @ gram) * second).sum(axis=1)
    norms = np.sqrt(((first @ gram) * first).sum(axis=1) * ((second @ gram) * second).sum(axis=1))
    cosine = np.divide(inner, norms, out=np.zeros_like(inner), where=norms > 0)
    without = 1 - first - second
    count, mean = without.sum(axis=0), cosine.mean()
    return np.append(mean, np.divide(cosine @ without, count, out=np.full(len(count), mean), where=count > 0))


def jackknife(values: Numbers) -> Estimate:
    """A figure of all n groups, `values[0]`, with the jackknife's interval from the n figures that leave one out.

    value +- t(n - 1) sqrt((n - 1) / n sum of squared deviations). Differences of figures go in the same way.
    """
    value, without = float(values[0]), values[1:]
    count = len(without)
    if count < FEWEST:
        return Estimate(value, reason=f"too few groups for an interval: {count}")
    error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    half = float(stats().t.ppf((1 + LEVEL) / 2, count - 1)) * float(error)
    return Estimate(value, value - half, value + half, f"jackknife over {count} groups")


def _against_grpo(values: Mapping[str, Numbers]) -> dict[str, Any]:
    return {
        name: {"agreement": jackknife(some).plain(), "less grpo": jackknife(some - values["grpo"]).plain()}
        for name, some in values.items()
    }
