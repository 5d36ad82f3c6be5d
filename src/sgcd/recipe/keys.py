"""Every key of a recipe: its full path, what it expects, what it is for, and which one a misspelt key was meant for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

from sgcd.recipe.aliases import RENAMED_KEYS
from sgcd.settings import Settings

JsonSchema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RecipeKey:
    """One key as a person types it."""

    path: str
    expected: str
    description: str
    schema: JsonSchema
    """The key's JSON schema, references followed."""
    is_required: bool = False
    default: Any = None
    is_section: bool = False
    """It holds further keys."""
    is_optional: bool = False
    """A section that may be left out; what it requires is required only inside it."""
    variant: tuple[str, str] | None = None
    """The key that decides whether this one exists, and the value it must have: ("environment.name", "lab")."""


def list_keys(model: type[Settings]) -> tuple[RecipeKey, ...]:
    """All keys of `model`, each section before what it holds, in the order in which they are declared."""
    schema = model.model_json_schema(by_alias=True)
    return tuple(_walk(schema, schema, "", None))


def _walk(root: JsonSchema, node: JsonSchema, prefix: str, variant: tuple[str, str] | None) -> Iterator[RecipeKey]:
    required = node.get("required", ())
    for name, field in cast(JsonSchema, node.get("properties", {})).items():
        path, (inner, optional) = prefix + name, _unwrap_optional(root, _resolve_ref(root, field))
        section = "oneOf" in inner or (inner.get("type") == "object" and not inner.get("additionalProperties"))
        yield RecipeKey(
            path=path,
            expected=_describe_mapping(root, inner) + ", or null" * optional if section else _describe_expected(inner),
            description=field.get("description") or (node if "const" in inner else inner).get("description", ""),
            schema=inner,
            is_required=name in required,
            default=field.get("default"),
            is_section=section,
            is_optional=optional,
            variant=variant,
        )
        if "oneOf" in inner:
            tag = inner["discriminator"]["propertyName"]
            for choice in inner["oneOf"]:
                shape = _resolve_ref(root, choice)
                yield from _walk(root, shape, f"{path}.", (f"{path}.{tag}", shape["properties"][tag]["const"]))
        elif section:
            yield from _walk(root, inner, f"{path}.", variant)


def _resolve_ref(root: JsonSchema, node: JsonSchema) -> JsonSchema:
    if "$ref" in node:
        return _resolve_ref(root, root["$defs"][node["$ref"].rsplit("/", 1)[1]])
    values = node.get("additionalProperties")
    if not isinstance(values, Mapping):
        return node
    return {**node, "additionalProperties": _resolve_ref(root, cast(JsonSchema, values))}


def _unwrap_optional(root: JsonSchema, node: JsonSchema) -> tuple[JsonSchema, bool]:
    """A section that may be null as the section that it then is, and whether it may."""
    choices = [_resolve_ref(root, choice) for choice in node.get("anyOf", ())]
    inner = [choice for choice in choices if choice.get("type") == "object"]
    return (inner[0], True) if len(inner) == 1 and len(choices) == 2 else (node, False)


def _describe_mapping(root: JsonSchema, node: JsonSchema) -> str:
    if "oneOf" in node:
        tag = node["discriminator"]["propertyName"]
        names = [_resolve_ref(root, choice)["properties"][tag]["const"] for choice in node["oneOf"]]
        return f"a mapping with {tag}: {' or '.join(names)}"
    properties: JsonSchema = node.get("properties", {})
    return f"a mapping with the keys {', '.join(properties)}" if properties else "an empty mapping"


def _describe_expected(node: JsonSchema) -> str:
    """What a value must be, in words."""
    if "anyOf" in node:
        return ", or ".join(_describe_expected(choice) for choice in node["anyOf"])
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    match node.get("type"):
        case "null":
            return "null"
        case "boolean":
            return "true or false"
        case "integer":
            return "a whole number" + _describe_bounds(node)
        case "number":
            return "a number" + _describe_bounds(node)
        case "object" if "properties" in node:
            keys = cast(Mapping[str, JsonSchema], node["properties"])
            return "{" + ", ".join(f"{key}: {_describe_expected(value)}" for key, value in keys.items()) + "}"
        case "object":
            return f"a mapping from names to {_describe_expected(node['additionalProperties'])}"
        case "array":
            if "prefixItems" not in node:
                return f"a list of {_describe_expected(node['items'])}"
            items = cast(Sequence[JsonSchema], node["prefixItems"])
            return f"a list of {len(items)}: " + ", then ".join(map(_describe_expected, items))
        case _:
            note = f" ({node['description']})" if "description" in node else ""
            return f"text that matches {node['pattern']}{note}" if "pattern" in node else "text"


def _describe_bounds(node: JsonSchema) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {node[name]:g}" for name, word in words.items() if name in node]
    return ", " + " and ".join(bounds) if bounds else ""


def path_of_location(location: Sequence[int | str], known: Sequence[RecipeKey]) -> str:
    """What a person would type for pydantic's location: no names of variants, no positions in lists."""
    sections = {key.path: key for key in known if key.is_section}
    path = ""
    for part in map(str, location):
        if path and path not in sections:
            break  # a position inside a value
        if path and part in _choices(sections[path]):
            continue
        path = f"{path}.{part}" if path else part
    return path


def _choices(section: RecipeKey) -> Sequence[str]:
    return tuple(section.schema.get("discriminator", {}).get("mapping", {}))


def suggest_keys(path: str, known_paths: Sequence[str]) -> list[str]:
    """The keys that an unknown one may stand for. A misspelt old name leads to the new name."""
    longer = [known for known in known_paths if known.startswith(f"{path}_")]
    old_paths = [old for old, new in RENAMED_KEYS.items() if new in known_paths]
    nearest = longer or nearest_keys(path, [*known_paths, *old_paths])
    return [*dict.fromkeys(RENAMED_KEYS.get(candidate, candidate) for candidate in nearest)]


def nearest_keys(path: str, known_paths: Sequence[str]) -> tuple[str, ...]:
    """The keys that `path` may stand for: its own last word in other sections, or else the closest spelling."""
    closeness = {known: _closeness(path, known) for known in known_paths if not path.startswith(f"{known}.")}
    elsewhere = [known for known in closeness if _last_word(known) == _last_word(path)]
    if elsewhere:
        elsewhere.sort(key=lambda known: -_similarity(path, known))
        return tuple(elsewhere[:1] if _similarity(path, elsewhere[0]) >= 0.8 else elsewhere[:3])
    best = max(closeness, key=closeness.__getitem__)
    return (best,) if closeness[best] >= (0.6 if _parent_path(best) == _parent_path(path) else 0.7) else ()


def _closeness(path: str, candidate: str) -> float:
    """Alike in the last word; where the sections differ too, alike as a whole, and in the last word less."""
    word_similarity = _similarity(_last_word(path), _last_word(candidate))
    if _parent_path(path) == _parent_path(candidate):
        return word_similarity
    return max(_similarity(path, candidate), 0.85 * word_similarity)


def _similarity(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()


def _last_word(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def _parent_path(path: str) -> str:
    return path.rpartition(".")[0]
