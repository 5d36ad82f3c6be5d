"""The protocol of a credit method: from a rollout, its siblings and its teachers to a signal for each token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.signal_settings import RuleSettings, TeacherChoice, WeightSettings
from sgcd.credit.weights import weigh_between
from sgcd.credit_records import OWN_REFERENCE, Credit, Features, Signal, Teacher
from sgcd.errors import MethodFault
from sgcd.records import Flags, Floats, Group, Rollout
from sgcd.settings import ComparisonTarget, Divergence, Support, TeacherModel

_CONTEXTS_WITHOUT_REFERENCE = ("none", "sibling", "answer", "skill")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Needs:
    """The forward passes that a method wants before it is called.

    >>> Needs(k=100, divergence="reverse_kl").teachers
    (Teacher(context='reference', model='current'),)
    """

    k: int
    """The most likely ids that are kept apart; see credit/divergence.py."""
    divergence: Divergence
    teachers: tuple[Teacher, ...] = (OWN_REFERENCE,)
    """Each is scored once a step, however many ask for it."""
    imitated: Teacher | None = None
    """The one of `teachers` that a signal's `imitate` may name."""
    compare_with: ComparisonTarget = "student"
    """What the teacher `OWN_REFERENCE` is compared with: the student, or another teacher."""
    support: Support = "teacher"
    """Whose most likely ids these are; the student's cost one more forward pass for each teacher."""
    requires_reading: bool = True
    """The method gets nothing of a reference once a sample of pairs has shown that the policy does not read them."""
    can_change_weights: bool = True
    """False where no weight can exceed one (gamma = 0): measure/validity.py then judges no weights."""

    @property
    def needs_references(self) -> bool:
        return any(reads_reference(teacher) for teacher in self.teachers)

    @property
    def needs_swapped(self) -> bool:
        return self.compare_with == "swapped" or any(teacher.context == "swapped" for teacher in self.teachers)

    def needs_model(self, model: TeacherModel) -> bool:
        return any(teacher.model == model for teacher in self.teachers)


def reads_reference(teacher: Teacher) -> bool:
    """Whether a reference has to be written for it."""
    return teacher.context not in _CONTEXTS_WITHOUT_REFERENCE


@dataclass(frozen=True, slots=True)
class CreditInputs:
    """What a method may read when it assigns credit to one rollout."""

    rollout: Rollout
    advantage: float
    """Of the rollout over its siblings."""
    features: Mapping[Teacher, Features] = field(default_factory=dict[Teacher, Features])
    """By teacher; a teacher is absent where it had no reference or no room."""
    outside_literals: Flags | None = None
    """False on masked literals; None where every token may have credit."""
    group: Group | None = None
    """The rollout's siblings, itself among them."""
    group_advantages: Sequence[float] = ()
    """Of the group's rollouts, in their order; dealt anew like `advantage` where the recipe says so."""
    verdict_order: Sequence[int] = ()
    """Whose verdict each of the group's rollouts was dealt, where the recipe deals them anew; empty: its own."""
    logprobs: Floats | None = None
    """log p of each token that the policy wrote, by the policy itself; None in `observe_step` of a method that needs
    no teacher."""
    entropy: Floats | None = None
    """The policy's entropy at each token that it wrote, over the whole vocabulary; None where `logprobs` is."""
    step: int = 0
    """The optimiser step, from 1."""
    reads_references: bool = True
    """False once a sample of pairs has shown that the policy does not read its references; see `without_unread`."""

    @property
    def reference_features(self) -> Features | None:
        """Under the group's own reference, read by the policy itself."""
        return self.features.get(OWN_REFERENCE)

    @property
    def group_rewards(self) -> list[float]:
        """The rewards of the group's rollouts as their advantages were dealt: under `control: permuted` another's.

        A group's advantages are in the order of its rewards, so the k-th largest reward belongs to the k-th largest.
        """
        assert self.group is not None
        rewards = sorted(rollout.reward for rollout in self.group.rollouts)
        dealt = np.empty(len(rewards))
        dealt[np.argsort(self.group_advantages, kind="stable")] = rewards
        return dealt.tolist()

    @property
    def creditable_tokens(self) -> Flags:
        """Tokens that the policy wrote and that are no masked literal."""
        mask = self.rollout.response_mask
        return mask if self.outside_literals is None else mask & self.outside_literals

    def unread(self, needs: Needs | None) -> set[Teacher]:
        """The teachers whose references the policy does not read, where the method asks that it does.

        A teacher that the method imitates is not among them: the method is nothing else.
        """
        if self.reads_references or needs is None or not needs.requires_reading:
            return set()
        reading = {teacher for teacher in needs.teachers if reads_reference(teacher) and teacher != needs.imitated}
        return reading & self.features.keys()

    def without_unread(self, needs: Needs | None) -> "CreditInputs":
        """What the method gets to see: no features under a reference that the policy does not read."""
        unread = self.unread(needs)
        if not unread:
            return self
        return replace(self, features={key: value for key, value in self.features.items() if key not in unread})


class Method(Protocol):
    @property
    def needs(self) -> Needs | None:
        """None: no reference is written and no teacher is scored."""
        ...

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Returns the signal of one rollout: a weight for each token of the response and, where `needs` declares them,
        a pull or an imitation. Must not change `inputs`."""
        ...

    @property
    def needs_whole_step(self) -> bool:
        """Whether `observe_step` must see all inputs of this step before any credit is assigned."""
        ...

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the method, as plain JSON."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class StatelessMethod:
    """What most methods share: nothing to see of the whole step and nothing to keep."""

    needs_whole_step = False

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """What the table of methods (docs/methods.md) says of a method, besides its role."""

    signal: str
    """What its numbers are made from."""
    source: str
    verified: str
    """What its numbers were compared with, besides the tests that all methods share."""
    teacher: str = "none"
    keeps_sign: bool = True
    """Whether every token's advantage has the sign of the rollout's."""
    reads_direction: bool = False
    """Whether the sign of the teacher's gap counts: then `control: permuted` is the control to run."""


def weighted_credit(inputs: CreditInputs, share: NDArray[Any], settings: WeightSettings) -> Signal:
    """Credit with weights between `low` and `high`, by each token's share."""
    weight, (floor, cap) = weigh_between(
        share, inputs.creditable_tokens, low=settings.low, high=settings.high, mean_one=settings.mean_one
    )
    return Signal(Credit(inputs.advantage, weight, cap, floor))


def gap_teacher(settings: TeacherChoice) -> Teacher:
    """The teacher that a recipe names, unless it is the student itself."""
    teacher = Teacher(settings.context, settings.teacher)
    if teacher == Teacher("none", "current"):
        raise MethodFault(
            "method.teacher: the policy as it is, with nothing in its prompt, is the student itself and never "
            "disagrees; name method.teacher: initial, or a method.context such as reference"
        )
    return teacher


def signal_pull(inputs: CreditInputs, pull: NDArray[Any] | None, reward_coefficient: float = 1.0) -> Signal:
    """Credit with weight one, and a pull on creditable tokens; a NaN or an infinity counts as 0."""
    num_tokens = len(inputs.rollout.response)
    credit = Credit(reward_coefficient * inputs.advantage, np.ones(num_tokens, np.float32))
    if pull is not None:
        pull = np.where(inputs.creditable_tokens & np.isfinite(pull), pull, 0).astype(np.float32)
    return Signal(credit, pull=pull)


def collect_by_task(
    step_inputs: Sequence[CreditInputs], get_value: Callable[[CreditInputs], Value | None]
) -> dict[str, dict[int, Value]]:
    """A value of each rollout of a step, by its task and its number among siblings; without those that have none."""
    collected: dict[str, dict[int, Value]] = {}
    for inputs in step_inputs:
        if (value := get_value(inputs)) is not None:
            collected.setdefault(inputs.rollout.task, {})[inputs.rollout.sibling] = value
    return collected


def mean_of(arrays: Sequence[NDArray[Any]]) -> float:
    """The mean of all their numbers; 0 where there are none."""
    values = np.concatenate([np.zeros(0), *arrays])
    return float(values.mean()) if values.size else 0.0


def find_method_class(settings_class: type[RuleSettings]) -> type[Any]:
    """`DirectSdSettings`, which is `name: direct_sd`, belongs to `DirectSd` in imitate/direct_sd.py."""
    name = get_args(settings_class.model_fields["name"].annotation)[0]
    role_folder = "" if settings_class.role == "credit" else settings_class.role
    folder = settings_class.folder or role_folder
    module = import_module(".".join(filter(None, ("sgcd.credit.methods", folder, name))))
    return getattr(module, settings_class.__name__.removesuffix("Settings"))


def build_method(settings: RuleSettings) -> Method:
    """The method that a recipe names."""
    return find_method_class(type(settings))(settings)
