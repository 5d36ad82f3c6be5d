"""A run's recipe: each room declares its settings, this composes them; YAML and key=value, checked whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import Field, ValidationError

from sgcd.act.settings import OwnEnvironment, SiblingsSettings
from sgcd.contrast.settings import ReferenceSettings
from sgcd.credit.settings import Method
from sgcd.endpoint.settings import WAYS
from sgcd.errors import RecipeError
from sgcd.keys import Key, keys, nearest, typed
from sgcd.lab.settings import LabEnvironment
from sgcd.learn.settings import (
    CheckpointSettings,
    OptimizerSettings,
    PolicySettings,
    SamplerSettings,
    ScoringSettings,
    SurrogateSettings,
)
from sgcd.measure.settings import EvaluationSettings
from sgcd.settings import Settings
from sgcd.yaml import lay, read, shown, write

VERSION = 1


class Recipe(Settings):
    """All that a run is told."""

    version: Literal[1]
    """Version of this format."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random follows from it."""
    steps: Annotated[int, Field(ge=1)]
    """Optimiser steps."""
    policy: PolicySettings
    environment: Annotated[LabEnvironment | OwnEnvironment, Field(discriminator="name")]
    siblings: SiblingsSettings = SiblingsSettings()
    sampler: SamplerSettings = SamplerSettings()
    reference: ReferenceSettings = ReferenceSettings()
    method: Method
    surrogate: SurrogateSettings = SurrogateSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    scoring: ScoringSettings = ScoringSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()


ASKED = ("reference.writer", "environment.user")
"""Sections with a model that a run asks."""
FREE = frozenset(
    {"steps", "checkpoint.every", "checkpoint.keep", "evaluation.every", "evaluation.model"}
    | {f"{section}.{way}" for section in ASKED for way in WAYS}
)
"""Keys, and sections with all they hold, that a resumed run may change: how long it goes on, how often it saves and
measures, by which way a model is reached and what it may cost, and whom `sgcd evaluate` plays instead of a policy. None
of them touches what a step computes or what a model is asked. Everything else does, or (the other keys of evaluation)
decides which checkpoint is called the best."""

SECRETS = ("key_env", "base_url")
"""Whoever typed a key or a password here, or under a name of their own beside these, is not shown it again."""


def free(key: str) -> bool:
    """Whether a resumed run may change this key."""
    return any(key == each or key.startswith(f"{each}.") for each in FREE)


class Difference(NamedTuple):
    """One key in which two recipes differ."""

    key: str
    old: Any
    new: Any


def load(source: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file (a Path) or in a text (a str), with each `a.b=c` laid over it, checked as a whole."""
    where = str(source) if isinstance(source, Path) else "recipe"
    data = read(source, where)
    for override in overrides:
        lay(data, override)
    version: object = data.get("version", VERSION)
    if version != VERSION or version is True:
        raise RecipeError(f"{where}: version: this sgcd reads version {VERSION} of the format, got {shown(version)}")
    try:
        return Recipe.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        known = keys(Recipe)
        problems = dict.fromkeys(_problem(cast(Mapping[str, Any], each), data, known) for each in error.errors())
        raise RecipeError(f"{where}: {'; '.join(problems)}") from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every key written out; load(dump(recipe)) == recipe."""
    return write(recipe.model_dump(mode="json", by_alias=True))


def differences(old: Recipe, new: Recipe) -> list[Difference]:
    """The keys in which two recipes differ, in the order of the recipe; a key that one of them lacks counts as null."""
    before, after = _flat(old.model_dump(mode="json", by_alias=True)), _flat(new.model_dump(mode="json", by_alias=True))
    paths = dict.fromkeys([*before, *after])
    return [
        Difference(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]


def _problem(error: Mapping[str, Any], data: Mapping[str, Any], known: Sequence[Key]) -> str:
    """One of pydantic's findings in the words of a person who typed a key: where, what was expected, what came."""
    path, kind = typed(error["loc"], known), str(error["type"])
    if kind == "extra_forbidden":
        return _unknown(path, error["input"], data, known)
    if kind == "json_invalid":
        return "holds text that is not valid Unicode"
    if kind.startswith("union_tag_"):
        path += ".name"
    expected = " or ".join(dict.fromkeys(key.expected for key in known if key.path == path))
    if kind in {"missing", "union_tag_not_found"}:
        return f"{path}: missing; expected {expected}"
    came = "something else" if path.rpartition(".")[2] in SECRETS else shown(_at(data, path))
    return f"{path}: expected {expected}, got {came}"


def _unknown(path: str, value: Any, data: Mapping[str, Any], known: Sequence[Key]) -> str:
    while isinstance(value, dict) and len(cast(dict[str, Any], value)) == 1:
        [(inner, value)] = cast(dict[str, Any], value).items()
        path = f"{path}.{inner}"
    for key in known:
        if key.path == path and key.variant:
            return f"{path}: only exists with {key.variant[0]}={key.variant[1]}"
    known = [key for key in known if key.variant is None or _at(data, key.variant[0]) == key.variant[1]]
    typed = f"{path}={shown(value)}"
    if path.startswith((*(f"{section}." for section in ASKED), "evaluation.model.")):
        typed = path  # it may be the key to a server
    right = [key.path for key in known if key.path.startswith(f"{path}_")] or nearest(path, known)
    if right:
        return f"{typed}: no such key; did you mean {' or '.join(right)}?"
    section = path.rpartition(".")[0]
    while section and all(key.path != section for key in known):
        section = section.rpartition(".")[0]
    inside = dict.fromkeys(key.path for key in known if key.path.rpartition(".")[0] == section)
    return f"{typed}: no such key; expected one of {', '.join(inside)}"


def _at(data: Mapping[Any, Any], path: str) -> Any:
    value: Any = data
    for part in path.split("."):
        value = cast(Mapping[Any, Any], value).get(part) if isinstance(value, Mapping) else None
    return value


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def reference() -> str:
    """docs/recipe.md: every key with what it expects, its default and what it is for."""
    lines = [
        "# The recipe, key by key",
        "",
        "Written by `python -m sgcd.recipe > docs/recipe.md` from the strings under the fields; a test compares.",
        "",
        "Any key can be set on the command line by its full path: `optimizer.lr=1e-4`, `policy.start=lab:plain`,",
        "`siblings.limits={turns: 8, tokens: 224}`. Texts need no quotes there.",
        "",
        f"A resumed run may change {', '.join(f'`{key}`' for key in sorted(FREE))}, and nothing else.",
        "",
        *(table := ["| key | expects | default | what it is |", "|---|---|---|---|"]),
    ]
    known = keys(Recipe)
    for key in known:
        if key.section and "." not in key.path:
            filled = any(other.path.startswith(f"{key.path}.") for other in known)
            lines += ["", f"## {key.path}", *(["", key.doc] if key.doc else []), *(["", *table] if filled else [])]
        elif key.optional or not key.section:
            inside = any(other.optional and key.path.startswith(f"{other.path}.") for other in known)
            lines.append(_row(key, "required there" if inside else "required"))
    return "\n".join(lines) + "\n"


def _row(key: Key, required: str) -> str:
    default = required if key.required else "none" if key.default is None else f"`{json.dumps(key.default)}`"
    only = f" Only with `{key.variant[0]}: {key.variant[1]}`." if key.variant and key.variant[0] != key.path else ""
    cells = [f"`{key.path}`", key.expected.split(" (")[0], default, key.doc + only]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(reference(), end="")
