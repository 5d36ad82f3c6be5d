"""`SGCDConfig`: TRL's GRPOConfig, and who assigns credit by what reference."""

import json
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from torch.nn import Module
from trl import GRPOConfig

from sgcd.contrast.settings import ReferenceSettings
from sgcd.credit.methods import Method, build_method
from sgcd.credit.settings import MethodSettings
from sgcd.errors import RecipeError, SgcdError


@dataclass
class SGCDConfig(GRPOConfig):
    """Arguments of [`SGCDTrainer`]: those of [`~trl.GRPOConfig`], and these.

    > Parameters that control the credit

    method (`str`): a credit or pull method of `sgcd methods`.
    method_kwargs (`dict`): its keys, as under `method` of a recipe.
    success_reward (`float`): the reward from which on a completion counts as a success; 1 for one reward function.
    writer_kwargs (`dict`): who writes references, as under `reference.writer` of a recipe.
    scoring_batch_tokens (`int`): padded tokens of one forward pass of teacher and student.
    share_prefixes (`bool`): compute what siblings have in common once in these passes.
    """

    method: str = field(default="sgcd", metadata={"help": "A credit or pull method of `sgcd methods`."})
    method_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Keys of the method, as under `method` of a recipe of sgcd."}
    )
    success_reward: float | None = field(
        default=None,
        metadata={"help": "A completion with at least this reward is a success; 1 for one reward function."},
    )
    writer_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Who writes references, as under `reference.writer` of a recipe; built-in by default."},
    )
    scoring_batch_tokens: int = field(
        default=2**15, metadata={"help": "Padded tokens of one forward pass of teacher and student."}
    )
    share_prefixes: bool = field(
        default=True, metadata={"help": "Compute what siblings have in common once, in passes of teacher and student."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.build_method()
        self.reference_settings()

    def build_method(self) -> Method:
        """The method that is named; refused where this trainer cannot execute it."""
        keys = {"name": self.method, **_read_dict(self.method_kwargs, "method_kwargs")}
        known = [get_args(one.model_fields["name"].annotation)[0] for one in get_args(get_args(MethodSettings)[0])]
        if self.method not in known:
            raise ValueError(f"method: expected one of {', '.join(known)}, got {self.method!r}")
        adapter: TypeAdapter[Any] = TypeAdapter(MethodSettings)
        try:
            method = build_method(adapter.validate_python(keys))
        except ValidationError as error:
            raise ValueError(f"method_kwargs: {_describe(error)}") from None
        except SgcdError as error:
            raise ValueError(str(error)) from None
        check_executable(self.method, method)
        return method

    def success_threshold(self, reward_funcs: Any) -> float:
        """The reward of a success. Refuses to guess it of a model's score or of a sum of rewards."""
        if self.success_reward is not None:
            return self.success_reward
        rewards = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        if len(rewards) == 1 and not isinstance(rewards[0], (str, Module)):
            return 1.0
        kind = "several rewards are summed" if len(rewards) > 1 else "the reward is a model's score"
        raise ValueError(
            f"success_reward: {kind}, and a reference contrasts successes with failures; expected the reward from "
            "which on a completion is a success"
        )

    def reference_settings(self) -> ReferenceSettings:
        """Who writes references, and their limits."""
        keys = _read_dict(self.writer_kwargs, "writer_kwargs")
        if keys.get("name") == "oracle":
            raise ValueError("writer_kwargs: oracle is a control of the lab; expected built-in, trace or llm")
        try:
            return ReferenceSettings.model_validate({"writer": keys} if keys else {})
        except ValidationError as error:
            raise ValueError(f"writer_kwargs: {_describe(error)}") from None
        except RecipeError as error:
            raise ValueError(str(error)) from None


def check_executable(name: str, method: Method) -> None:
    """Refuse a method that moves the policy by more than advantages, or whose teacher is another model."""
    if (needs := method.needs) is None:
        return
    if needs.imitated:
        raise ValueError(
            f"method: {name} imitates a teacher in the loss, which is TRL's own here; expected a credit or pull method "
            "(see `sgcd methods`), or train it with `sgcd train`"
        )
    models = sorted({teacher.model for teacher in needs.teachers if teacher.model != "current"})
    contexts = sorted({teacher.context for teacher in needs.teachers if teacher.context == "skill"})
    if models or contexts:
        raise ValueError(
            f"method: the teacher of {name} is {', '.join([*models, *contexts])}; SGCDTrainer keeps no model or text "
            "besides the policy: expected teacher: current, or train it with `sgcd train`"
        )


def _read_dict(value: dict[str, Any] | str | None, name: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}: expected a dict or a JSON object, got {value!r} ({error.msg})") from None
    return dict(value or {})


def _describe(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}" for one in error.errors())
