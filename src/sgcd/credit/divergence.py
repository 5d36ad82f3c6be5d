"""The divergence between teacher and student on K+2 outcomes, for numpy arrays and torch tensors.

The outcomes of a position are the teacher's top-K ids, the observed token, and one tail bucket for all other ids. The
functions take natural-log probabilities in this order (paper, section 4.3 and appendix B). The module does not import
torch: each array brings its own namespace.
"""

import math
import sys
from typing import Any

import numpy as np

from sgcd.settings import Divergence

Array = Any
"""A numpy array or a torch tensor. The output is of the same kind as the input."""

SERVER_CLAMP = -1e-7
"""Upper bound of the kept log-mass of a server's logprobs, because rounding may leave no mass for the tail."""


def divergence_features(
    student: Array, teacher: Array, observed: Array, *, k: int = 100, divergence: Divergence = "reverse_kl"
) -> tuple[Array, Array, Array]:
    """(d, H, gap) of each token from logits [tokens, vocabulary] that are already divided by the temperature.

    d is the divergence between student p and teacher q on the K+2 outcomes, H is the teacher's entropy on them, and
    gap = log q(y) - log p(y) of the observed token y.
    """
    ids = top_ids(teacher, k)
    p, q = outcomes(student, ids, observed), outcomes(teacher, ids, observed)
    gap = observed_logprob_of(q, ids, observed) - observed_logprob_of(p, ids, observed)
    return divergence_of(p, q, divergence), entropy_of(q), gap


def top_ids(logits: Array, k: int) -> Array:
    """Ids of the k largest logits of each token, in ascending order. Ties go to the lower id. NaN counts as -inf."""
    xp, z = _namespace(logits), _at_least_float32(logits)
    size = z.shape[-1]
    k = min(k, size)
    if xp.isnan(xp.amax(z, axis=-1)).any():
        z = xp.where(xp.isnan(z), -math.inf, z)
    values, ids = _topk(z, min(k + 1, size))
    if k == size or (values[:, k - 1] > values[:, k]).all():
        ids = ids[:, :k]
        return ids[_row_indices(ids), xp.argsort(ids, -1)]
    level = values[:, k - 1 : k]  # some token has a tie at the k-th logit
    above, tied = z > level, z == level
    tie_slots = k - above.sum(-1)[:, None]
    kept = above | (tied & (xp.cumsum(tied, axis=-1) <= tie_slots))
    return xp.where(kept)[-1].reshape(-1, k)


def outcomes(logits: Array, ids: Array, observed: Array) -> Array:
    """Logprobs [tokens, K+2] of the outcomes: `ids`, the observed token, the tail.

    The observed token's slot is empty (-inf) when `ids` contains the token. The tail is
    logsumexp(logits outside the support) - logsumexp(logits), not 1 - kept mass. It is -inf when no id is outside.
    """
    return outcomes_from_logprobs(log_softmax(logits), ids, observed)


def log_softmax(logits: Array) -> Array:
    """Logprobs [tokens, vocabulary], at least float32.

    The maximum is subtracted first. So a constant that is added to all logits does not round their differences again.
    """
    xp, z = _namespace(logits), _at_least_float32(logits)
    if hasattr(xp, "log_softmax"):  # torch reads the logits once
        return xp.log_softmax(z, -1)
    with np.errstate(all="ignore"):
        below_top = z - _finite_maximum(z)
        return below_top - xp.log(xp.sum(xp.exp(below_top), axis=-1, keepdims=True))


def outcomes_from_logprobs(logprobs: Array, ids: Array, observed: Array) -> Array:
    """`outcomes` from logprobs of the whole vocabulary."""
    xp, row, observed_column = _namespace(logprobs), _row_indices(ids), observed[:, None]
    outside = logprobs + 0.0
    outside[row, ids] = -math.inf
    outside[row, observed_column] = -math.inf
    with np.errstate(all="ignore"):
        observed_slot = xp.where(_is_in_topk(ids, observed), -math.inf, logprobs[row, observed_column])
        return xp.concatenate((logprobs[row, ids], observed_slot, _logsumexp(outside)), axis=-1)


def server_outcomes(topk_logprobs: Array, ids: Array, observed: Array, *, observed_logprobs: Array) -> Array:
    """The K+2 outcomes from a server that gives only the logprobs of `ids` and of the observed token.

    tail = log(-expm1(min(kept log-mass, -1e-7))), for student and teacher, so that equal inputs have divergence 0.
    """
    xp, topk = _namespace(topk_logprobs), _at_least_float32(topk_logprobs)
    with np.errstate(all="ignore"):
        observed_slot = xp.where(_is_in_topk(ids, observed), -math.inf, _at_least_float32(observed_logprobs)[:, None])
        kept_mass = _logsumexp(xp.concatenate((topk, observed_slot), axis=-1))
        kept_mass = xp.where(kept_mass > SERVER_CLAMP, SERVER_CLAMP, kept_mass)
        return xp.concatenate((topk, observed_slot, xp.log(-xp.expm1(kept_mass))), axis=-1)


def divergence_of(student: Array, teacher: Array, kind: Divergence = "reverse_kl") -> Array:
    """d >= 0 between two sets of outcomes: KL(p||q) (equation 2), KL(q||p), or the Jensen-Shannon divergence.

    Merging outcomes never raises a KL, so d is at most the divergence over the whole vocabulary.
    """
    xp = _namespace(student)
    with np.errstate(all="ignore"):
        if kind == "reverse_kl":
            d = _kl(student, teacher)
        elif kind == "forward_kl":
            d = _kl(teacher, student)
        else:
            high, low = xp.maximum(student, teacher), xp.minimum(student, teacher)
            middle = high + xp.log1p(xp.expm1(low - high) / 2)  # log of the mean; for equal inputs exactly the input
            d = (_kl(student, middle) + _kl(teacher, middle)) / 2
        return xp.where(d < 0, 0.0, d)


def entropy_of(outcome: Array) -> Array:
    """H = -sum q log q over the outcomes, the tail included; between 0 and ln(K+2)."""
    xp = _namespace(outcome)
    with np.errstate(all="ignore"):
        h = -(xp.exp(outcome) * xp.where(outcome == -math.inf, 0.0, outcome)).sum(-1)
        return xp.where(h > 0, h, h * 0)


def observed_logprob_of(outcome: Array, ids: Array, observed: Array) -> Array:
    """The observed token's logprob, from its own slot or from its place in `ids`."""
    xp, listed = _namespace(outcome), _is_in_topk(ids, observed)
    is_slot = xp.concatenate((ids == observed[:, None], ~listed), axis=-1)
    return xp.amax(xp.where(is_slot, outcome[:, :-1], -math.inf), axis=-1)


def _kl(a: Array, b: Array) -> Array:
    """sum of a (log a - log b) over the outcomes with mass under a. An empty slot adds 0."""
    xp, empty = _namespace(a), a == -math.inf
    return (xp.exp(a) * xp.where(empty, 0.0, a - b)).sum(-1)


def _is_in_topk(ids: Array, observed: Array) -> Array:
    return (ids == observed[:, None]).any(-1)[:, None]


def _logsumexp(x: Array) -> Array:
    xp, top = _namespace(x), _finite_maximum(x)
    return xp.log(xp.sum(xp.exp(x - top), axis=-1, keepdims=True)) + top


def _finite_maximum(x: Array) -> Array:
    """The maximum of each token, or 0 where that is not finite."""
    xp = _namespace(x)
    top = xp.amax(x, axis=-1, keepdims=True)
    return xp.where(xp.isfinite(top), top, 0.0)


def _topk(z: Array, count: int) -> tuple[Array, Array]:
    """The largest values of each token in descending order, and their ids. numpy and torch differ only here."""
    xp = _namespace(z)
    if hasattr(xp, "topk"):
        return xp.topk(z, count)
    indices = xp.argpartition(z, z.shape[-1] - count, axis=-1)[:, z.shape[-1] - count :]
    indices = indices[_row_indices(indices), xp.argsort(-z[_row_indices(indices), indices], -1)]
    return z[_row_indices(indices), indices], indices


def _row_indices(ids: Array) -> Array:
    """A column [tokens, 1] of token indices."""
    xp = _namespace(ids)
    return xp.cumsum(xp.ones_like(ids[:, :1]), axis=0) - 1


def _at_least_float32(x: Array) -> Array:
    """`x` as float32 or wider, because half precision would be the dominant error."""
    xp = _namespace(x)
    return xp.asarray(x, dtype=xp.float32) if x.dtype.itemsize < 4 else x


def _namespace(array: Array) -> Any:
    """The module with an array's functions: from the array API's method, or from the module of its type."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules[type(array).__module__.partition(".")[0]]
