"""A credit rule from a plain class: its `signal` returns a weight for each token, or a `Signal`; all else is optional.

`needs` asks for teachers, `prepare` sees the whole step before any credit is assigned, and `state_dict` with
`load_state_dict` lets a resumed run go on exactly. The signal of each rollout is checked before it is used.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs
from sgcd.credit.settings import OwnMethodSettings
from sgcd.credit_records import Credit, Signal, Teacher
from sgcd.errors import MethodFault
from sgcd.load_object import load_class
from sgcd.settings import ComparisonTarget, Divergence, Support, TeacherContext, TeacherModel
from sgcd.text import cut_middle, describe_exception


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
        self._check_methods()
        self.needs = self._read_needs()

    def _check_methods(self) -> None:
        """Refuse a method that could not be called, and a state that would be kept and never restored."""
        arguments = {"signal": ("inputs",), "prepare": ("step",), "state_dict": (), "load_state_dict": ("state",)}
        present = {name: getattr(self._rule, name) for name in arguments if hasattr(self._rule, name)}
        for name, method in present.items():
            expected = f"expected {name}({', '.join(('self', *arguments[name]))})"
            if not callable(method) or inspect.iscoroutinefunction(method):
                raise MethodFault(f"{self._where}.{name} is no plain method; {expected}")
            try:
                inspect.signature(method).bind(*arguments[name])
            except ValueError:
                continue  # a method of a compiled class may have no signature
            except TypeError as problem:
                raise MethodFault(f"{self._where}.{name} does not fit ({problem}); {expected}") from problem
        if ("state_dict" in present) != ("load_state_dict" in present):
            raise MethodFault(
                f"{self._where} has only one of state_dict(self) and load_state_dict(self, state), and a resumed run "
                "needs both: add the other"
            )

    def _read_needs(self) -> Needs | None:
        needs: object = self._call("needs", getattr, self._rule, "needs", None)
        if not isinstance(needs, Needs | None):
            raise MethodFault(f"{self._where}.needs must be a Needs of sgcd.credit.methods, or None, got {needs!r}")
        if needs and (problem := describe_needs_fault(needs)):
            raise MethodFault(f"{self._where}.needs: {problem}")
        return needs

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """The rule's signal, checked against the rollout."""
        returned = self._call(f"signal: rollout {inputs.rollout.name}", self._rule.signal, inputs)
        signal = returned if isinstance(returned, Signal) else self._weight_credit(inputs, returned)
        self._check_signal(inputs, signal)
        return signal

    @property
    def needs_whole_step(self) -> bool:
        """Every step, where the rule has `prepare`."""
        return hasattr(self._rule, "prepare")

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None:
        """Show the rule the whole step, where it has `prepare`."""
        if self.needs_whole_step:
            self._call("prepare", self._rule.prepare, step_inputs)

    def state_dict(self) -> dict[str, Any]:
        """The rule's own state, as plain JSON; empty where it keeps none."""
        if not hasattr(self._rule, "state_dict"):
            return {}
        state = self._call("state_dict", self._rule.state_dict)
        is_plain = hasattr(state, "keys")
        try:
            is_plain = is_plain and json.loads(json.dumps(state, allow_nan=False)) == state
        except (TypeError, ValueError):
            is_plain = False
        if not is_plain:
            raise MethodFault(
                f"{self._where}.state_dict: expected a mapping from words to plain JSON, such as float(x) or "
                f"array.tolist(), which comes back as it was, got {cut_middle(repr(state), 80)}"
            )
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned. A run that begins has no state, and the rule is as it was made."""
        if state and hasattr(self._rule, "load_state_dict"):
            self._call("load_state_dict", self._rule.load_state_dict, state)

    def _call(self, where: str, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except Exception as problem:
            raise MethodFault(f"{self._where}.{where}: {describe_exception(problem)}") from problem

    def _weight_credit(self, inputs: CreditInputs, returned: Any) -> Signal:
        """Credit from one number per token; the number of a token that the policy did not write does not matter."""
        if returned is None or isinstance(returned, (int, float)):
            self._refuse(inputs, f"got {returned}")
        try:
            numbers: NDArray[Any] = np.asarray(returned)
        except (TypeError, ValueError, RuntimeError) as problem:  # RuntimeError: a tensor that has a gradient
            self._refuse(inputs, f"got {type(returned).__name__} ({describe_exception(problem)})")
        if numbers.dtype.kind not in "biuf":
            self._refuse(inputs, f"got {type(returned).__name__}")
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            weights = numbers.astype(np.float32)
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
        num_weights = len(signal.credit.weight)
        if num_weights != len(inputs.rollout.response):
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


def describe_needs_fault(needs: Needs) -> str:
    """What the engine could not score of what a rule asks for, and what to write; empty if it can all be scored."""
    if type(needs.k) is not int or needs.k < 1:
        return f"k must be a whole number, at least 1, got {needs.k!r}"
    named = [
        ("divergence", needs.divergence, Divergence),
        ("compare_with", needs.compare_with, ComparisonTarget),
        ("support", needs.support, Support),
    ]
    if type(needs.teachers) is not tuple or not needs.teachers:
        return f"teachers must be a tuple of at least one Teacher, such as (OWN_REFERENCE,), got {needs.teachers!r}"
    for teacher in needs.teachers:
        if type(teacher) is not Teacher:
            return f"teachers must be of sgcd.credit_records.Teacher, got {teacher!r}"
        named += [("a teacher's context", teacher.context, TeacherContext)]
        named += [("a teacher's model", teacher.model, TeacherModel)]
    for name, value, choices in named:
        if value not in get_args(choices):
            return f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}"
    if Teacher("none", "current") in needs.teachers:
        return "a teacher with context none and model current is the student itself and never disagrees; leave it out"
    if needs.imitated and needs.imitated not in needs.teachers:
        return f"it imitates {needs.imitated}, which is not among its teachers; add it"
    return ""
