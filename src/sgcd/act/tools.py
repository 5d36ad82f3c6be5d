"""Tools of a plain class: their schemas, from type hints and docstrings, and whether the arguments of a call fit."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from sgcd.errors import EnvironmentFault

RESERVED = ("reset", "get_reward", "close")
"""Public methods that are the harness's and not the policy's."""

HEADING = re.compile(r"(Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?):\s*$")
ARGUMENT = re.compile(r"(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Tool:
    """One public method, as the policy may call it."""

    name: str
    description: str
    arguments: Mapping[str, TypeAdapter[Any]]
    described: Mapping[str, str]
    needed: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """In the shape that chat templates expect."""
        properties = {
            name: adapter.json_schema() | ({"description": self.described[name]} if name in self.described else {})
            for name, adapter in self.arguments.items()
        }
        parameters = {"type": "object", "properties": properties, "required": list(self.needed)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    def fit(self, given: Mapping[str, Any]) -> dict[str, Any] | str:
        """The arguments as the method's type hints want them, or what is wrong with them, in words for the policy."""
        for name in given:
            if name not in self.arguments:
                return f"{self.name} has no argument {name}"
        for name in self.needed:
            if name not in given:
                return f"{self.name} needs the argument {name}"
        fitting: dict[str, Any] = {}
        for name, value in given.items():
            try:
                fitting[name] = self.arguments[name].validate_python(value)
            except ValidationError as problem:
                first = problem.errors(include_url=False)[0]["msg"]
                return f"the argument {name} of {self.name} does not fit : {first[0].lower()}{first[1:]}"
        return fitting


def tools_of(plain: type) -> dict[str, Tool]:
    """All public methods of the class, by name."""
    names = [
        name
        for name in sorted(dir(plain))
        if not name.startswith("_")
        and name not in RESERVED
        and isinstance(inspect.getattr_static(plain, name), FunctionType)
    ]
    if not names:
        raise EnvironmentFault(
            f"environment.class: {plain.__name__} has no tools; expected public methods besides {', '.join(RESERVED)}: "
            "add one with type hints and a docstring"
        )
    return {
        name: _tool(getattr(plain, name), name, f"environment.class: tool {plain.__name__}.{name}") for name in names
    }


def _tool(method: FunctionType, name: str, where: str) -> Tool:
    description, described = read_docstring(inspect.getdoc(method) or "")
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
        adapters[parameter.name] = _adapter(hints[parameter.name], f"{where}: the argument {parameter.name}")
    needed = tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)
    return Tool(name, description, adapters, described, needed)


def _adapter(hint: Any, where: str) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as problem:
        raise EnvironmentFault(
            f"{where} has the type {hint}, which has no JSON form; expected str, int, float, bool, list, dict, Literal "
            "or a mixture of them"
        ) from problem
    return adapter


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says before its first heading, and what it says of each argument.

    >>> read_docstring("Find a user.\\n\\nArgs:\\n    name: First name,\\n        in small letters.")
    ('Find a user.', {'name': 'First name, in small letters.'})
    """
    summary: list[str] = []
    described: dict[str, str] = {}
    heading, last, margin = "", "", 0
    for line in text.splitlines():
        words, indent = line.strip(), len(line) - len(line.lstrip())
        if found := HEADING.match(line):
            heading, last, margin = found[1], "", 0
        elif not heading:
            summary.append(words)
        elif heading in ("Args", "Arguments", "Parameters") and words:
            margin = margin or indent
            if indent <= margin and (argument := ARGUMENT.match(words)):
                last = argument[1]
                described[last] = argument[2]
            elif last:
                described[last] = f"{described[last]} {words}".strip()
    return "\n".join(summary).strip(), described
