"""What `sgcd setup bfcl` wrote down about BFCL: functions, and tasks with their scripted users and gold calls."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from sgcd.act.environments.benchmark_process import BenchmarkProcess, ServerCommand
from sgcd.errors import EnvironmentFault

BFCL_DESCRIPTION = "bfcl.json"
BFCL_FORMAT = 1
_MIN_PRIVATE_CHARS = 4
"""Shorter arguments, such as a number of lines, stand in too many texts."""


@dataclass(frozen=True)
class BfclTask:
    """A task: what the user says in each turn, and the calls that it takes."""

    id: str
    user: Sequence[str]
    tools: tuple[Mapping[str, Any], ...]
    """Schemas of the functions that are known from the beginning."""
    late_tools: Mapping[int, tuple[Mapping[str, Any], ...]]
    """Those that the user gives in a later turn."""
    gold_calls: Sequence[Sequence[Mapping[str, Any]]]

    @property
    def category(self) -> str:
        """base, miss_func, miss_param or long_context."""
        return self.id.removeprefix("multi_turn_").rpartition("_")[0]

    @property
    def split(self) -> str:
        """The split of the task's number: all categories play variants of one scenario under one number."""
        return split_of(int(self.id.rpartition("_")[2]))

    @cached_property
    def private_literals(self) -> tuple[str, ...]:
        """Arguments of gold calls that the user does not say."""
        user_words = "\n".join(self.user)
        values = [value for turn in self.gold_calls for call in turn for value in _leaves(call["arguments"])]
        return tuple(dict.fromkeys(v for v in values if len(v) >= _MIN_PRIVATE_CHARS and v not in user_words))


def split_of(number: int) -> str:
    """The split of a number from 0 to 199: 120 for training, 20 for validation, 60 for the test.

    >>> [split_of(number) for number in (5, 6, 7, 9, 10)]
    ['train', 'dev', 'test', 'test', 'train']
    """
    last_digit = number % 10
    return "train" if last_digit < 6 else "dev" if last_digit == 6 else "test"


def bfcl_process(folder: Path) -> BenchmarkProcess:
    """The benchmark's server."""
    script = Path(__file__).with_name("benchmark_server.py")
    setup = f"sgcd setup bfcl --folder {folder}"
    return BenchmarkProcess(ServerCommand(folder, script, "BfclTasks", setup, reuses_episodes=True))


def load_bfcl(folder: Path) -> dict[str, BfclTask]:
    """The tasks by id, from the folder that `sgcd setup bfcl` made."""
    path, again = folder / BFCL_DESCRIPTION, f"sgcd setup bfcl --folder {folder}"
    if not path.is_file():
        raise EnvironmentFault(f"environment.folder: {folder} holds no BFCL; make it: {again}")
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != BFCL_FORMAT:
        raise EnvironmentFault(f"environment.folder: {path} is of another version of sgcd; make it anew: {again}")
    return parse_tasks(description)


def parse_tasks(description: Mapping[str, Any]) -> dict[str, BfclTask]:
    """The tasks as the server describes them."""
    types: Mapping[str, str] = description["types"]
    tools = {
        class_name: {function["name"]: tool_schema(function, types) for function in functions}
        for class_name, functions in description["functions"].items()
    }
    return {task["id"]: _parse_task(task, tools, description["late_functions_prompt"]) for task in description["tasks"]}


def _parse_task(task: Mapping[str, Any], tools: Mapping[str, Mapping[str, Any]], late_prompt: str) -> BfclTask:
    known = {name: tool for class_name in task["classes"] for name, tool in tools[class_name].items()}
    late = {int(turn): tuple(known[name] for name in names) for turn, names in task["late_functions"].items()}
    late_names = {name for names in task["late_functions"].values() for name in names}
    user = ["\n".join(texts) for texts in task["user"]]
    for turn, schemas in late.items():
        functions = json.dumps([schema["function"] for schema in schemas], ensure_ascii=False)
        user[turn] = late_prompt.replace("{functions}", functions)
    first = tuple(tool for name, tool in known.items() if name not in late_names)
    return BfclTask(task["id"], user, first, late, task["gold_calls"])


def tool_schema(function: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """A function of the package in the shape that chat templates expect; `types` names its types in JSON's words."""
    parameters = {**function["parameters"], "properties": _json_types(function["parameters"]["properties"], types)}
    schema = {"name": function["name"], "description": function["description"]}
    return {"type": "function", "function": {**schema, "parameters": {**parameters, "type": "object"}}}


def _json_types(properties: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    return {name: _json_type(schema, types) for name, schema in properties.items()}


def _json_type(schema: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    translated = {**schema, "type": types.get(schema.get("type", "string"), "string")}
    if "properties" in schema:
        translated["properties"] = _json_types(schema["properties"], types)
    if "items" in schema:
        translated["items"] = _json_type(schema["items"], types)
    return translated


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        nested = cast("dict[str, Any] | list[Any]", value)
        for part in nested.values() if isinstance(nested, dict) else nested:
            yield from _leaves(part)
    else:
        yield str(value)
