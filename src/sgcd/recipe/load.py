"""Reads a recipe from YAML and key=value overrides, checks it as a whole, and names each problem by its key."""

import json
import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from sgcd.errors import RecipeError
from sgcd.recipe.aliases import TRL_KEYS, rename_old_names, rename_override
from sgcd.recipe.keys import RecipeKey, list_keys, path_of_location, suggest_keys
from sgcd.recipe.schema import MODEL_SECTIONS, Recipe
from sgcd.storage.yaml import apply_override, load_yaml, short_json

_RECIPE_VERSION = 1
_PACKAGE = Path(__file__).parents[1]
_SECRET_KEYS = ("key_env", "base_url")
"""A person may type a password here, or under a misspelt name beside these, so no message repeats the value."""
_NOT_SUPERVISED = {"steps": 1, "method": {"name": "grpo"}}
"""Required keys that a supervised start does not read; `sgcd sft` sets the number of steps by its data."""
_logger = logging.getLogger(__name__)


def load_recipe(source: Path | str, overrides: Sequence[str] = (), *, is_supervised: bool = True) -> Recipe:
    """The recipe in a file (a Path) or in a text (a str), with each `a.b=c` applied to it, checked as a whole.

    A recipe with a supervised section may leave out steps and method, unless it is to be trained by reinforcement.
    """
    where = str(source) if isinstance(source, Path) else "recipe"
    data, notices = load_yaml(source, where), list[str]()
    rename_old_names(data, where, notices)
    if any(override.startswith("surrogate.preset=") for override in overrides):
        data.pop("surrogate", None)  # the file's keys would win over the preset
    for override in overrides:
        apply_override(data, rename_override(override, notices))
        rename_old_names(data, where, notices)
    if is_supervised and data.get("supervised"):
        data = {**_NOT_SUPERVISED, **data}
    version: object = data.get("version", _RECIPE_VERSION)
    if version != _RECIPE_VERSION or version is True:
        raise RecipeError(
            f"{where}: version: this sgcd reads version {_RECIPE_VERSION} of the format, got {short_json(version)}"
        )
    try:
        recipe = Recipe.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        known = list_keys(Recipe)
        problems = dict.fromkeys(
            _describe_error(cast(Mapping[str, Any], detail), data, known) for detail in error.errors()
        )
        raise RecipeError(f"{where}: {'; '.join(problems)}") from None
    if notices:
        _logger.warning("; ".join(dict.fromkeys(notices)))
    return recipe


def _describe_error(error: Mapping[str, Any], data: Mapping[str, Any], known: Sequence[RecipeKey]) -> str:
    """One of pydantic's errors in a user's terms: the key, what it expects, what it got."""
    path, kind = path_of_location(error["loc"], known), str(error["type"])
    is_inside_value = bool(error["loc"]) and str(error["loc"][-1]) != path.rpartition(".")[2]
    if kind == "extra_forbidden" and not is_inside_value:
        return _describe_unknown_key(path, error["input"], data, known)
    if kind == "json_invalid":
        return "holds text that is not valid Unicode"
    if kind == "value_error":  # a check of several keys; its text begins with the key inside the section
        return ".".join(filter(None, [path, str(error["ctx"]["error"])]))
    if kind.startswith("union_tag_"):
        path += ".name"
    keys = [key for key in known if key.path == path]
    of_variant = [key for key in keys if key.variant and _value_at(data, key.variant[0]) == key.variant[1]]
    expected = " or ".join(dict.fromkeys(key.expected for key in of_variant or keys))
    if kind in {"missing", "union_tag_not_found"} and not is_inside_value:
        return f"{path}: missing; expected {expected}"
    actual = "something else" if path.rpartition(".")[2] in _SECRET_KEYS else short_json(_value_at(data, path))
    names = [key.expected for key in keys] if kind == "union_tag_invalid" else []
    nearest = get_close_matches(str(_value_at(data, path)), names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{path}: expected {expected}, got {actual}{hint}"


def _describe_unknown_key(path: str, value: Any, data: Mapping[str, Any], known: Sequence[RecipeKey]) -> str:
    while isinstance(value, dict) and len(cast(dict[str, Any], value)) == 1:
        [(inner, value)] = cast(dict[str, Any], value).items()
        path = f"{path}.{inner}"
    own_names = {key.path.rpartition(".")[2] for key in known}
    inner_values = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    if trl_names := [inner for inner in inner_values if inner in TRL_KEYS and inner not in own_names]:
        return "; ".join(
            _describe_unknown_key(f"{path}.{inner}", inner_values[inner], data, known) for inner in trl_names
        )
    for key in known:
        if key.path == path and key.variant:
            return f"{path}: only exists with {key.variant[0]}={key.variant[1]}"
    name = path.rpartition(".")[2]
    known = [key for key in known if key.variant is None or _value_at(data, key.variant[0]) == key.variant[1]]
    entry = f"{path}={short_json(value)}"
    if path.startswith((*(f"{section}." for section in MODEL_SECTIONS), "evaluation.model.")):
        entry = path  # its value may be a server's key
    is_same_name = TRL_KEYS.get(name, "").rpartition(".")[2] == name
    if name in TRL_KEYS and not is_same_name and (name not in own_names or path == name):
        return f"{entry}: no such key; did you mean {TRL_KEYS[name]}? TRL's {name}"
    candidates = suggest_keys(path, [key.path for key in known])
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


def lab_recipe_path(method: str) -> Path:
    """recipes/lab/METHOD.yaml."""
    return shipped_path(f"recipes/lab/{method}.yaml")


def shipped_path(name: str) -> Path:
    """A recipe or a study that ships with sgcd: inside the package of a wheel, else beside the sources."""
    inside = _PACKAGE / name
    return inside if inside.is_file() else _PACKAGE.parents[1] / name
