"""Reads what the schemas of tools list: the names of tools and arguments, and the constants of an argument."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast


def enum_values(tools: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Any]]:
    """The constants that a schema lists for an argument, by tool and path: names joined by dots."""
    found: dict[tuple[str, str], list[Any]] = {}
    for tool, parameters in _read_schemas(tools):
        for path, constant in _schema_constants(parameters, "", {}):
            found.setdefault((tool, path), []).append(constant)
    return found


def _schema_constants(
    schema: Any, path: str, definitions: Mapping[str, Any], depth: int = 8
) -> Iterator[tuple[str, Any]]:
    """The constants of an argument and of all that is inside it, with the path of names to each."""
    if not isinstance(schema, Mapping) or depth == 0:
        return
    node = cast(Mapping[str, Any], schema)
    definitions = {**definitions, **_mapping(node.get("$defs"))}
    constants = [*_sequence(node.get("enum")), *([node["const"]] if "const" in node else [])]
    yield from ((path, constant) for constant in constants if isinstance(constant, str | int | float))
    reference = str(node.get("$ref", "")).rpartition("/")[2]
    parts = [part for name in ("anyOf", "oneOf", "allOf") for part in _sequence(node.get(name))]
    for inner in (*parts, node.get("items"), definitions.get(reference)):
        yield from _schema_constants(inner, path, definitions, depth - 1)
    for name, inner in _mapping(node.get("properties")).items():
        yield from _schema_constants(inner, f"{path}.{name}" if path else name, definitions, depth - 1)


def _mapping(part: Any) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], part) if isinstance(part, Mapping) else {}


def _sequence(part: Any) -> Sequence[Any]:
    return cast(Sequence[Any], part) if isinstance(part, list) else ()


def schema_names(tools: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for tool, parameters in _read_schemas(tools):
        yield from (tool, *_mapping(parameters.get("properties")))


def _read_schemas(tools: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name of each tool, and the schema of its arguments."""
    for tool in tools:
        function = _mapping(tool.get("function")) or tool
        yield str(function.get("name")), _mapping(function.get("parameters"))
