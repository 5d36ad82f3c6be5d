"""Controls on weights: the same method with its weights made equal, dealt anew, or tied where siblings agree.

A method's weights have a size, a distribution and a place. Each control takes one of them away and leaves the others:

    uniform_weights     each rollout's weights are their mean: the size alone
    mean_weight         every weight of a step is the mean of all: GRPO times one number
    shuffled_weights    each rollout's weights are dealt anew among its tokens, by seed: the distribution, no place
    tied_weights        siblings that wrote the same tokens so far share the mean of their weights there

Tied weights keep what the group's advantages cancel: on a common prefix they sum to zero with equal weights only.
Tokens that may have no credit keep theirs.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sgcd.credit.methods import CreditInputs, Method, Needs
from sgcd.credit_records import Signal
from sgcd.errors import MethodFault
from sgcd.records import Flags, Floats
from sgcd.seeds import derive_seed
from sgcd.settings import WeightControl

_SEES_THE_STEP: tuple[WeightControl, ...] = ("mean_weight", "tied_weights")


class ControlledWeights:
    """A method that is what it was, but for its weights."""

    def __init__(self, method: Method, control: WeightControl, seed: int) -> None:
        self._method = method
        self._control: WeightControl = control
        self._seed = seed
        self._weights: dict[str, Floats] = {}
        """Of each rollout of this step, by name, where the control must see the whole step."""
        if control in _SEES_THE_STEP and method.needs is None:
            raise MethodFault(
                f"control: {control} must see a step's weights before its first gradient, and a method without a "
                "teacher has none by then; expected a method with a teacher, or uniform_weights or shuffled_weights"
            )

    @property
    def needs(self) -> Needs | None:
        return self._method.needs

    @property
    def needs_whole_step(self) -> bool:
        return self._method.needs_whole_step or self._control in _SEES_THE_STEP

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None:
        if self._method.needs_whole_step:
            self._method.observe_step(step_inputs)
        if self._control not in _SEES_THE_STEP:
            return
        weights = [self._method.assign_credit(inputs).credit.weight for inputs in step_inputs]
        control_weights = tie_weights if self._control == "tied_weights" else average_weights
        controlled = control_weights(step_inputs, weights)
        names = [inputs.rollout.name for inputs in step_inputs]
        self._weights = dict(zip(names, controlled, strict=True))

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """The method's credit with controlled weights. Where it reads no references, its weights are one already."""
        signal = self._method.assign_credit(inputs)
        if not inputs.reads_references:
            return signal
        credit = signal.credit
        if self._control in _SEES_THE_STEP:
            weight = self._weights[inputs.rollout.name]
        elif self._control == "uniform_weights":
            weight = _set_to_mean(credit.weight, inputs.creditable_tokens)
        else:
            seed = derive_seed(self._seed, "shuffled weights", inputs.step, inputs.rollout.name)
            weight = shuffle_weights(credit.weight, inputs.creditable_tokens, seed)
        return replace(signal, credit=replace(credit, weight=weight))

    def state_dict(self) -> dict[str, Any]:
        return self._method.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._method.load_state_dict(state)


def shuffle_weights(weight: Floats, creditable: Flags, seed: int) -> Floats:
    """The same weights, dealt anew among the creditable tokens.

    >>> import numpy as np
    >>> weight, creditable = np.array([1, 2, 3, 4], np.float32), np.array([True, False, True, True])
    >>> sorted(shuffle_weights(weight, creditable, 0)[creditable].tolist()), shuffle_weights(weight, creditable, 0)[1]
    ([1.0, 3.0, 4.0], np.float32(2.0))
    """
    shuffled = weight.copy()
    shuffled[creditable] = np.random.default_rng(seed).permutation(weight[creditable])
    return shuffled


def average_weights(step_inputs: Sequence[CreditInputs], weights: Sequence[Floats]) -> list[Floats]:
    """Every creditable token's weight is the mean over all of the step."""
    parts = [weight[inputs.creditable_tokens] for inputs, weight in zip(step_inputs, weights, strict=True)]
    values = np.concatenate([np.zeros(0, np.float32), *parts])
    mean = _mean_within(values) if values.size else np.float32(1)
    return [
        np.where(inputs.creditable_tokens, mean, weight).astype(np.float32)
        for inputs, weight in zip(step_inputs, weights, strict=True)
    ]


def tie_weights(step_inputs: Sequence[CreditInputs], weights: Sequence[Floats]) -> list[Floats]:
    """Siblings whose responses agree up to and with a token share the mean of their weights at it."""
    tied = [weight.copy() for weight in weights]
    for start, length in _group_spans(step_inputs):
        places: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        for index in range(start, start + length):
            response = step_inputs[index].rollout.response
            for token in np.flatnonzero(step_inputs[index].creditable_tokens):
                places[response[: token + 1].tobytes()].append((index, int(token)))
        for same in places.values():
            if len(same) > 1:
                mean = _mean_within(np.array([weights[index][token] for index, token in same], np.float32))
                for index, token in same:
                    tied[index][token] = mean
    return tied


def _group_spans(step_inputs: Sequence[CreditInputs]) -> list[tuple[int, int]]:
    """Where each group's rollouts begin in the step, and how many they are."""
    spans: list[tuple[int, int]] = []
    for index, inputs in enumerate(step_inputs):
        if spans and step_inputs[spans[-1][0]].rollout.task == inputs.rollout.task:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((index, 1))
    return spans


def _set_to_mean(weight: Floats, creditable: Flags) -> Floats:
    if not creditable.any():
        return weight
    return np.where(creditable, _mean_within(weight[creditable]), weight).astype(np.float32)


def _mean_within(values: Floats) -> np.float32:
    """The mean, which rounding must not move beyond the smallest or the largest."""
    return np.float32(np.clip(values.mean(dtype=np.float64), values.min(), values.max()))
