"""Every key of a recipe: its full path, what it expects, what it is for, and which one a misspelt key was meant for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

from sgcd.settings import Settings

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key as a person types it."""

    path: str
    expected: str
    doc: str
    schema: Schema
    """The key's JSON schema, references followed."""
    required: bool = False
    default: Any = None
    section: bool = False
    """It holds further keys."""
    optional: bool = False
    """A section that may be left out; what it requires is required only inside it."""
    variant: tuple[str, str] | None = None
    """The key that decides whether this one exists, and the value it must have: ("environment.name", "lab")."""


def keys(model: type[Settings]) -> tuple[Key, ...]:
    """All keys of `model`, each section before what it holds, in the order in which they are declared."""
    schema = model.model_json_schema(by_alias=True)
    return tuple(_walk(schema, schema, "", None))


def _walk(root: Schema, node: Schema, prefix: str, variant: tuple[str, str] | None) -> Iterator[Key]:
    required = node.get("required", ())
    for name, field in cast(Schema, node.get("properties", {})).items():
        path, (inner, optional) = prefix + name, _held(root, _followed(root, field))
        section = "oneOf" in inner or inner.get("type") == "object"
        yield Key(
            path=path,
            expected=_mapping(root, inner) + ", or null" * optional if section else _expected(inner),
            doc=field.get("description") or (node if "const" in inner else inner).get("description", ""),
            schema=inner,
            required=name in required,
            default=field.get("default"),
            section=section,
            optional=optional,
            variant=variant,
        )
        if "oneOf" in inner:
            tag = inner["discriminator"]["propertyName"]
            for choice in inner["oneOf"]:
                shape = _followed(root, choice)
                yield from _walk(root, shape, f"{path}.", (f"{path}.{tag}", shape["properties"][tag]["const"]))
        elif section:
            yield from _walk(root, inner, f"{path}.", variant)


def _followed(root: Schema, node: Schema) -> Schema:
    if "$ref" in node:
        return _followed(root, root["$defs"][node["$ref"].rsplit("/", 1)[1]])
    return node


def _held(root: Schema, node: Schema) -> tuple[Schema, bool]:
    """A section that may be null as the section that it then is, and whether it may."""
    choices = [_followed(root, choice) for choice in node.get("anyOf", ())]
    inner = [choice for choice in choices if choice.get("type") == "object"]
    return (inner[0], True) if len(inner) == 1 and len(choices) == 2 else (node, False)


def _mapping(root: Schema, node: Schema) -> str:
    if "oneOf" in node:
        tag = node["discriminator"]["propertyName"]
        names = [_followed(root, choice)["properties"][tag]["const"] for choice in node["oneOf"]]
        return f"a mapping with {tag}: {' or '.join(names)}"
    properties: Schema = node.get("properties", {})
    return f"a mapping with the keys {', '.join(properties)}" if properties else "an empty mapping"


def _expected(node: Schema) -> str:
    """What a value must be, in words."""
    if "anyOf" in node:
        return ", or ".join(_expected(choice) for choice in node["anyOf"])
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
            return "a whole number" + _bounds(node)
        case "number":
            return "a number" + _bounds(node)
        case "array":
            if "prefixItems" not in node:
                return f"a list of {_expected(node['items'])}"
            items = cast(Sequence[Schema], node["prefixItems"])
            return f"a list of {len(items)}: " + ", then ".join(map(_expected, items))
        case _:
            return f"text that matches {node['pattern']} ({node['description']})" if "pattern" in node else "text"


def _bounds(node: Schema) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {node[name]:g}" for name, word in words.items() if name in node]
    return ", " + " and ".join(bounds) if bounds else ""


def typed(location: Sequence[int | str], known: Sequence[Key]) -> str:
    """What a person would type for pydantic's location: no names of variants, no positions in lists."""
    sections = {key.path: key for key in known if key.section}
    path = ""
    for part in map(str, location):
        if path and path not in sections:
            break  # a position inside a value
        if path and part in _choices(sections[path]):
            continue
        path = f"{path}.{part}" if path else part
    return path


def _choices(section: Key) -> Sequence[str]:
    return tuple(section.schema.get("discriminator", {}).get("mapping", {}))


def nearest(path: str, known: Sequence[Key]) -> tuple[str, ...]:
    """The right keys that `path` may have been meant for: its own last word elsewhere, or else the closest spelling."""
    closeness = {key.path: _closeness(path, key.path) for key in known if not path.startswith(f"{key.path}.")}
    elsewhere = [right for right in closeness if _last(right) == _last(path)]
    if elsewhere:
        elsewhere.sort(key=lambda right: -_alike(path, right))
        return tuple(elsewhere[:1] if _alike(path, elsewhere[0]) >= 0.8 else elsewhere[:3])
    best = max(closeness, key=closeness.__getitem__)
    return (best,) if closeness[best] >= (0.6 if _section(best) == _section(path) else 0.7) else ()


def _closeness(path: str, right: str) -> float:
    """Alike in the last word; where the sections differ too, alike as a whole, and in the last word less."""
    words = _alike(_last(path), _last(right))
    if _section(path) == _section(right):
        return words
    return max(_alike(path, right), 0.85 * words)


def _alike(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def _section(path: str) -> str:
    return path.rpartition(".")[0]
