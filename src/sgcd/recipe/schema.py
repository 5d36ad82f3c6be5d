"""A run's recipe: each room declares its settings, this composes them; YAML and key=value, checked whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import Field, ValidationError

from sgcd.act.settings import OwnEnvironmentSettings, SiblingsSettings
from sgcd.contrast.settings import ReferenceSettings
from sgcd.credit.settings import MethodSettings
from sgcd.endpoint.settings import CONNECTION_KEYS
from sgcd.errors import RecipeError
from sgcd.lab.settings import LabSettings
from sgcd.learn.settings import (
    CheckpointSettings,
    OptimizerSettings,
    PolicySettings,
    SamplerSettings,
    ScoringSettings,
    SurrogateSettings,
)
from sgcd.measure.settings import EvaluationSettings
from sgcd.recipe.keys import RecipeKey, list_keys, nearest_keys, path_of_location
from sgcd.settings import Settings
from sgcd.storage.yaml import apply_override, dump_yaml, load_yaml, short_json

_RECIPE_VERSION = 1


class Recipe(Settings):
    """All that a run is told."""

    version: Literal[1]
    """Version of this format."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random follows from it."""
    steps: Annotated[int, Field(ge=1)]
    """Optimiser steps."""
    control: Literal["none", "permuted"] = "none"
    """permuted deals the advantages of a group anew among its rollouts, by seed: what a method learns then, it does not
    learn from the verifier."""
    policy: PolicySettings
    environment: Annotated[LabSettings | OwnEnvironmentSettings, Field(discriminator="name")]
    siblings: SiblingsSettings = SiblingsSettings()
    sampler: SamplerSettings = SamplerSettings()
    reference: ReferenceSettings = ReferenceSettings()
    method: MethodSettings
    surrogate: SurrogateSettings = SurrogateSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    scoring: ScoringSettings = ScoringSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()


_MODEL_SECTIONS = ("reference.writer", "environment.user")
"""Sections with a model that a run asks."""
RESUMABLE_KEYS = frozenset(
    {"steps", "checkpoint.every", "checkpoint.keep", "evaluation.every", "evaluation.model"}
    | {f"{section}.{way}" for section in _MODEL_SECTIONS for way in CONNECTION_KEYS}
)
"""Keys, and sections with all they hold, that a resumed run may change: how long it goes on, how often it saves and
measures, by which way a model is reached and what it may cost, and whom `sgcd evaluate` plays instead of a policy. None
of them touches what a step computes or what a model is asked. Everything else does, or (the other keys of evaluation)
decides which checkpoint is called the best."""

_SECRET_KEYS = ("key_env", "base_url")
"""Whoever typed a key or a password here, or under a name of their own beside these, is not shown it again."""


def may_change_on_resume(key: str) -> bool:
    """Whether a resumed run may change this key."""
    return any(key == resumable or key.startswith(f"{resumable}.") for resumable in RESUMABLE_KEYS)


class KeyDifference(NamedTuple):
    """One key in which two recipes differ."""

    key: str
    old: Any
    new: Any


def load_recipe(source: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file (a Path) or in a text (a str), with each `a.b=c` laid over it, checked as a whole."""
    where = str(source) if isinstance(source, Path) else "recipe"
    data = load_yaml(source, where)
    for override in overrides:
        apply_override(data, override)
    version: object = data.get("version", _RECIPE_VERSION)
    if version != _RECIPE_VERSION or version is True:
        raise RecipeError(
            f"{where}: version: this sgcd reads version {_RECIPE_VERSION} of the format, got {short_json(version)}"
        )
    try:
        return Recipe.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        known = list_keys(Recipe)
        problems = dict.fromkeys(
            _describe_error(cast(Mapping[str, Any], detail), data, known) for detail in error.errors()
        )
        raise RecipeError(f"{where}: {'; '.join(problems)}") from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every key written out; load(dump(recipe)) == recipe."""
    return dump_yaml(recipe.model_dump(mode="json", by_alias=True))


def recipe_differences(old: Recipe, new: Recipe) -> list[KeyDifference]:
    """The keys in which two recipes differ, in the order of the recipe; a key that one of them lacks counts as null."""
    before, after = (
        _flatten(old.model_dump(mode="json", by_alias=True)),
        _flatten(new.model_dump(mode="json", by_alias=True)),
    )
    paths = dict.fromkeys([*before, *after])
    return [
        KeyDifference(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]


def _describe_error(error: Mapping[str, Any], data: Mapping[str, Any], known: Sequence[RecipeKey]) -> str:
    """One of pydantic's findings in the words of a person who typed a key: where, what was expected, what came."""
    path, kind = path_of_location(error["loc"], known), str(error["type"])
    if kind == "extra_forbidden":
        return _describe_unknown_key(path, error["input"], data, known)
    if kind == "json_invalid":
        return "holds text that is not valid Unicode"
    if kind.startswith("union_tag_"):
        path += ".name"
    expected = " or ".join(dict.fromkeys(key.expected for key in known if key.path == path))
    if kind in {"missing", "union_tag_not_found"}:
        return f"{path}: missing; expected {expected}"
    actual = "something else" if path.rpartition(".")[2] in _SECRET_KEYS else short_json(_value_at(data, path))
    return f"{path}: expected {expected}, got {actual}"


def _describe_unknown_key(path: str, value: Any, data: Mapping[str, Any], known: Sequence[RecipeKey]) -> str:
    while isinstance(value, dict) and len(cast(dict[str, Any], value)) == 1:
        [(inner, value)] = cast(dict[str, Any], value).items()
        path = f"{path}.{inner}"
    for key in known:
        if key.path == path and key.variant:
            return f"{path}: only exists with {key.variant[0]}={key.variant[1]}"
    known = [key for key in known if key.variant is None or _value_at(data, key.variant[0]) == key.variant[1]]
    entry = f"{path}={short_json(value)}"
    if path.startswith((*(f"{section}." for section in _MODEL_SECTIONS), "evaluation.model.")):
        entry = path  # it may be the key to a server
    candidates = [key.path for key in known if key.path.startswith(f"{path}_")] or nearest_keys(path, known)
    if candidates:
        return f"{entry}: no such key; did you mean {' or '.join(candidates)}?"
    section = path.rpartition(".")[0]
    while section and all(key.path != section for key in known):
        section = section.rpartition(".")[0]
    section_keys = dict.fromkeys(key.path for key in known if key.path.rpartition(".")[0] == section)
    return f"{entry}: no such key; expected one of {', '.join(section_keys)}"


def _value_at(data: Mapping[Any, Any], path: str) -> Any:
    value: Any = data
    for part in path.split("."):
        value = cast(Mapping[Any, Any], value).get(part) if isinstance(value, Mapping) else None
    return value


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flatten(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def document_recipe() -> str:
    """docs/recipe.md: every key with what it expects, its default and what it is for."""
    lines = [
        "# The recipe, key by key",
        "",
        "Written by `python -m sgcd.recipe.schema > docs/recipe.md` from the strings under the fields; a test "
        "compares.",
        "",
        "Any key can be set on the command line by its full path: `optimizer.lr=1e-4`, `policy.start=lab:plain`,",
        "`siblings.limits={turns: 8, tokens: 224}`. Texts need no quotes there.",
        "",
        f"A resumed run may change {', '.join(f'`{key}`' for key in sorted(RESUMABLE_KEYS))}, and nothing else.",
        "",
        *(table := ["| key | expects | default | what it is |", "|---|---|---|---|"]),
    ]
    known = list_keys(Recipe)
    for key in known:
        if key.is_section and "." not in key.path:
            has_keys = any(other_key.path.startswith(f"{key.path}.") for other_key in known)
            lines += [
                "",
                f"## {key.path}",
                *(["", key.description] if key.description else []),
                *(["", *table] if has_keys else []),
            ]
        elif key.is_optional or not key.is_section:
            is_inside_optional = any(
                other_key.is_optional and key.path.startswith(f"{other_key.path}.") for other_key in known
            )
            lines.append(_table_row(key, "required there" if is_inside_optional else "required"))
    return "\n".join(lines) + "\n"


def _table_row(key: RecipeKey, required: str) -> str:
    default = required if key.is_required else "none" if key.default is None else f"`{json.dumps(key.default)}`"
    condition = (
        f" Only with `{key.variant[0]}: {key.variant[1]}`." if key.variant and key.variant[0] != key.path else ""
    )
    cells = [f"`{key.path}`", key.expected.split(" (")[0], default, key.description + condition]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(document_recipe(), end="")
