"""A credit rule from a plain class: its `signal` returns a weight for each token, or a `Signal`; all else is optional.

`needs` asks for teachers, `prepare` sees the whole step before any credit is assigned, and `state_dict` with
`load_state_dict` lets a resumed run go on exactly. The signal of each rollout is checked before it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from sgcd.credit.methods import CreditInputs, CreditResult, MethodFacts, Needs, no_segments
from sgcd.credit.settings import OwnMethodSettings
from sgcd.credit_records import Credit, Signal
from sgcd.errors import MethodFault
from sgcd.load_object import load_class
from sgcd.records import Floats
from sgcd.text import describe_exception


class OwnMethod:
    """Calls the rule of `method.class`. A rule without `needs` is given no features, and no reference is written."""

    facts = MethodFacts(
        "yours",
        "yours",
        "every signal is checked",
        teacher="what the rule asks for",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: OwnMethodSettings) -> None:
        self._where = f"method.class: {settings.class_}"
        expected = "signal(self, inputs), which returns a weight for each token"
        cls = load_class("method.class", settings.class_, method="signal", expected=expected, fault=MethodFault)
        try:
            self._rule: Any = cls()
        except Exception as problem:
            raise MethodFault(f"{self._where} cannot be made: {describe_exception(problem)}") from problem
        self.needs = self._read_needs()

    def _read_needs(self) -> Needs | None:
        needs: object = getattr(self._rule, "needs", None)
        if not isinstance(needs, Needs | None):
            raise MethodFault(f"{self._where}.needs must be a Needs of sgcd.credit.methods, or None, got {needs!r}")
        if needs and needs.imitated and needs.imitated not in needs.teachers:
            raise MethodFault(f"{self._where}.needs imitates {needs.imitated}, which is not among its teachers; add it")
        return needs

    def assign_credit(self, inputs: CreditInputs) -> CreditResult:
        """The rule's signal, checked against the rollout."""
        returned = self._call(f"signal: rollout {inputs.rollout.name}", self._rule.signal, inputs)
        signal = returned if isinstance(returned, Signal) else self._weight_credit(inputs, returned)
        self._check_signal(inputs, signal)
        return CreditResult(signal, no_segments(len(inputs.rollout.response)))

    @property
    def needs_calibration(self) -> bool:
        """Every step, where the rule has `prepare`."""
        return hasattr(self._rule, "prepare")

    def calibrate(self, batch: Sequence[CreditInputs]) -> None:
        """Show the rule the whole step, where it has `prepare`."""
        if self.needs_calibration:
            self._call("prepare", self._rule.prepare, batch)

    def state_dict(self) -> dict[str, Any]:
        """The rule's own state, as plain JSON; empty where it keeps none."""
        return self._rule.state_dict() if hasattr(self._rule, "state_dict") else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        if hasattr(self._rule, "load_state_dict"):
            self._rule.load_state_dict(state)

    def _call(self, where: str, method: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return method(argument)
        except Exception as problem:
            raise MethodFault(f"{self._where}.{where}: {describe_exception(problem)}") from problem

    def _weight_credit(self, inputs: CreditInputs, returned: Any) -> Signal:
        """Credit from one number per token; the number of a token that the policy did not write does not matter."""
        try:
            weights: Floats = np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError):
            self._refuse(inputs, f"got {type(returned).__name__}")
        mask = inputs.rollout.response_mask
        if weights.shape != mask.shape:
            self._refuse(inputs, f"got an array of shape {weights.shape}")
        weights = np.where(mask, weights, np.float32(1))
        if not (np.isfinite(weights) & (weights > 0)).all():
            token = int(np.argmin(np.isfinite(weights) & (weights > 0)))
            self._refuse(inputs, f"got {weights[token]:g} at token {token}")
        cap, floor = max(1.0, float(weights.max(initial=1))), min(1.0, float(weights.min(initial=1)))
        return Signal(Credit(inputs.advantage, weights, cap, floor))

    def _check_signal(self, inputs: CreditInputs, signal: Signal) -> None:
        """Refuse a `Signal` that does not fit the rollout, or an imitation for which no teacher is scored."""
        num_tokens, num_weights = len(inputs.rollout.response), len(signal.credit.weight)
        if num_weights != num_tokens:
            self._refuse(inputs, f"got a Signal for {num_weights} tokens")
        imitated = self.needs.imitated if self.needs else None
        if signal.imitate and signal.imitate.teacher != imitated:
            raise MethodFault(
                f"{self._where}.signal: rollout {inputs.rollout.name}: it imitates {signal.imitate.teacher}, "
                f"which would not be executed; name it in needs, as Needs(..., imitated={signal.imitate.teacher})"
            )

    def _refuse(self, inputs: CreditInputs, got: str) -> NoReturn:
        raise MethodFault(
            f"{self._where}.signal: rollout {inputs.rollout.name}: expected a finite weight above 0 for each of "
            f"the {len(inputs.rollout.response)} tokens of its response, or a Signal, {got}; a weight says how "
            "much, the advantage which way"
        )
