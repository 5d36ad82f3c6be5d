"""Build tools from a plain class: schemas from type hints and docstrings, and checks of a call's arguments."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from sgcd.errors import EnvironmentFault

_HARNESS_METHODS = ("reset", "get_reward", "get_public_facts", "get_parts", "close")
"""Public methods that are called by the harness and are not tools."""

_SECTION_HEADING = re.compile(r"(Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?):\s*$")
_ARGUMENT_LINE = re.compile(r"(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Tool:
    """One public method as a tool."""

    name: str
    description: str
    arguments: Mapping[str, TypeAdapter[Any]]
    argument_docs: Mapping[str, str]
    required: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema in the shape that chat templates expect."""
        properties = {
            name: adapter.json_schema()
            | ({"description": self.argument_docs[name]} if name in self.argument_docs else {})
            for name, adapter in self.arguments.items()
        }
        parameters = {"type": "object", "properties": properties, "required": list(self.required)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    def validate_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any] | str:
        """Convert the arguments to the method's types; returns a sentence for the policy where they do not fit."""
        for name in arguments:
            if name not in self.arguments:
                return f"{self.name} has no argument {name}"
        for name in self.required:
            if name not in arguments:
                return f"{self.name} needs the argument {name}"
        validated: dict[str, Any] = {}
        for name, value in arguments.items():
            try:
                validated[name] = self.arguments[name].validate_python(value)
            except ValidationError as problem:
                message = problem.errors(include_url=False)[0]["msg"]
                return f"the argument {name} of {self.name} does not fit : {message[0].lower()}{message[1:]}"
        return validated


def build_tools(cls: type) -> dict[str, Tool]:
    """The tools of a class, by name: all its public methods."""
    names = [
        name
        for name in sorted(dir(cls))
        if not name.startswith("_")
        and name not in _HARNESS_METHODS
        and isinstance(inspect.getattr_static(cls, name), FunctionType)
    ]
    if not names:
        raise EnvironmentFault(
            f"environment.class: {cls.__name__} has no tools; expected public methods besides "
            f"{', '.join(_HARNESS_METHODS)}: "
            "add one with type hints and a docstring"
        )
    return {
        name: _build_tool(getattr(cls, name), name, f"environment.class: tool {cls.__name__}.{name}") for name in names
    }


def _build_tool(method: FunctionType, name: str, where: str) -> Tool:
    description, argument_docs = parse_docstring(inspect.getdoc(method) or "")
    if not description:
        raise EnvironmentFault(
            f"{where} has no docstring; expected a sentence that tells the policy what it does: "
            f"write one, or call the method _{name} if it is not a tool"
        )
    try:
        hints = get_type_hints(method, include_extras=True)
    except (NameError, TypeError) as problem:
        raise EnvironmentFault(
            f"{where}: its type hints cannot be read ({problem}); expected names that exist in its module"
        ) from problem
    parameters = list(inspect.signature(method).parameters.values())[1:]  # without self
    adapters: dict[str, TypeAdapter[Any]] = {}
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise EnvironmentFault(
                f"{where}: {parameter} cannot be described to a policy; expected plain arguments: name each one"
            )
        if parameter.name not in hints:
            raise EnvironmentFault(
                f"{where}: the argument {parameter.name} has no type hint; expected one, such as {parameter.name}: str"
            )
        adapters[parameter.name] = _build_adapter(hints[parameter.name], f"{where}: the argument {parameter.name}")
    required = tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)
    return Tool(name, description, adapters, argument_docs, required)


def _build_adapter(hint: Any, where: str) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as problem:
        raise EnvironmentFault(
            f"{where} has the type {hint}, which has no JSON form; expected str, int, float, bool, list, dict, Literal "
            "or a mixture of them"
        ) from problem
    return adapter


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into the text before its first heading and the description of each argument.

    >>> parse_docstring("Find a user.\\n\\nArgs:\\n    name: First name,\\n        in small letters.")
    ('Find a user.', {'name': 'First name, in small letters.'})
    """
    summary: list[str] = []
    argument_docs: dict[str, str] = {}
    heading, last_argument, margin = "", "", 0
    for line in text.splitlines():
        stripped, indent = line.strip(), len(line) - len(line.lstrip())
        if section := _SECTION_HEADING.match(line):
            heading, last_argument, margin = section[1], "", 0
        elif not heading:
            summary.append(stripped)
        elif heading in ("Args", "Arguments", "Parameters") and stripped:
            margin = margin or indent
            if indent <= margin and (argument := _ARGUMENT_LINE.match(stripped)):
                last_argument = argument[1]
                argument_docs[last_argument] = argument[2]
            elif last_argument:
                argument_docs[last_argument] = f"{argument_docs[last_argument]} {stripped}".strip()
    return "\n".join(summary).strip(), argument_docs
