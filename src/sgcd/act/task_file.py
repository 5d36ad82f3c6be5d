"""Load tasks from JSON lines and check every row before anything is played."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError

from sgcd.errors import EnvironmentFault
from sgcd.load_object import load_object
from sgcd.records import CATEGORIES, TOOL_CATEGORIES, Task

UNDECLARED_CATEGORIES = {name: name in TOOL_CATEGORIES for name in CATEGORIES}
"""For each category that needs no declaration, whether a success needs a tool."""
_HARNESS_KEYS = ("id", "category", "prompt", "private", "verifier", "user")
"""Keys of a row that are the harness's; reset() gets one of them only if it has a parameter of that name."""


class PromptMessage(BaseModel):
    """A message of a row's prompt."""

    role: StrictStr
    content: StrictStr


class TaskRow(BaseModel):
    """The keys of a row whose values are checked by type. A description is the error message's "expected"."""

    category: Annotated[StrictStr, Field(description="a string")] = ""
    id: Annotated[StrictStr | StrictInt, Field(description="a string or a whole number")] = ""
    prompt: Annotated[
        Annotated[StrictStr, Field(min_length=1)] | list[PromptMessage],
        Field(description="a string or a list of messages with role and content"),
    ] = []
    private: Annotated[
        list[StrictStr] | dict[Annotated[str, Field(pattern="^[a-z]+$")], list[StrictStr]],
        Field(
            description="a list of strings, or such lists by kind, as in {'card': ['4111']}, a kind being a small word"
        ),
    ] = []


def reset_arguments(cls: type[Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of reset(): the row without the harness's keys that reset() does not take."""
    parameters = inspect.signature(cls.reset).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {key: value for key, value in row.items() if takes_all or key in parameters or key not in _HARNESS_KEYS}


def check_judge(where: str, name: str, arguments: str) -> None:
    """Refuse a `module:function` that is missing, is no function, or does not take two arguments."""
    judge = load_object(where, name)
    if not callable(judge):
        raise EnvironmentFault(f"{where}: {name} is no function but {type(judge).__name__}; it must take {arguments}")
    try:
        signature = inspect.signature(judge)
    except ValueError:
        return  # a function of a compiled module may have none
    try:
        signature.bind(None, None)
    except TypeError as problem:
        raise EnvironmentFault(
            f"{where}: {name}{signature} does not fit ({problem}); it must take {arguments}"
        ) from problem


def load_tasks(
    key: str,
    path: str,
    cls: type[Any],
    *,
    categories: Mapping[str, bool] = UNDECLARED_CATEGORIES,
    has_reward: bool = True,
    has_user: bool = False,
) -> tuple[Task, ...]:
    """Load the tasks of one split, in the order of the file. `key` is the recipe's key of the file.

    `categories` are those that a row may name, and whether a success in them needs a tool.
    Without `has_reward` each row must name its verifier. With `has_user` the recipe has a simulated user, and each row
    must have its instructions in `user`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8"
        raise EnvironmentFault(
            f"{key}: {path} cannot be read ({reason}); expected a file of JSON lines, seen from {Path.cwd()}"
        ) from problem
    tasks: dict[str, Task] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        task = _parse_task(where, number, line, cls=cls, has_reward=has_reward, has_user=has_user)
        task = _apply_category(where, task, categories)
        if task.id in tasks:
            raise EnvironmentFault(
                f"{path}, line {number}: the id {task.id!r} was used before; expected one of its own"
            )
        tasks[task.id] = task
    if not tasks:
        raise EnvironmentFault(f"{key}: {path} holds no task; expected JSON lines, one task each")
    return tuple(tasks.values())


def _parse_task(where: str, number: int, line: str, *, cls: type[Any], has_reward: bool, has_user: bool) -> Task:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as problem:
        raise EnvironmentFault(f"{where}: not JSON ({problem}); expected one object on each line") from problem
    if not isinstance(row, dict):
        raise EnvironmentFault(f"{where}: expected an object with what reset() takes, got {line.strip()[:40]}")
    row = cast(dict[str, Any], row)
    try:
        task_row = TaskRow.model_validate(row)
    except ValidationError as problem:
        key = str(problem.errors()[0]["loc"][0])
        expected = TaskRow.model_fields[key].description
        raise EnvironmentFault(f"{where}: {key} must be {expected}, got {row[key]!r}") from problem
    _check_verifier(where, row, cls, has_reward=has_reward)
    _check_user(where, row, cls, has_user=has_user)
    signature = inspect.signature(cls.reset)
    try:
        signature.bind(None, **reset_arguments(cls, row))
    except TypeError as problem:
        raise EnvironmentFault(
            f"{where}: the row does not fit {cls.__name__}.reset{signature}: {problem}; make its keys the arguments"
        ) from problem
    return Task(str(task_row.id if "id" in row else number), task_row.category, row)


def _apply_category(where: str, task: Task, categories: Mapping[str, bool]) -> Task:
    """The task with what its category means. Of a task that names none, nothing is known about tools."""
    if not task.category:
        return replace(task, category=CATEGORIES[0], needs_tool=False)
    if task.category not in categories:
        raise EnvironmentFault(
            f"{where}: category must be one of {', '.join(categories)}, got {task.category!r}; declare your own in the "
            f"recipe, as environment.categories={{{task.category}: {{needs_tool: true}}}}"
        )
    return replace(task, needs_tool=categories[task.category])


def _check_verifier(where: str, row: Mapping[str, Any], cls: type[Any], *, has_reward: bool) -> None:
    if "verifier" in row:
        if not isinstance(row["verifier"], str):
            raise EnvironmentFault(
                f"{where}: verifier must name a function as module:function, got {row['verifier']!r}"
            )
        check_judge(f"{where}: verifier", row["verifier"], "the object and the policy's last text")
    elif not has_reward:
        raise EnvironmentFault(
            f"{where}: the task has no verifier; expected {cls.__name__}.get_reward(), environment.reward in the "
            "recipe, or a key verifier in the row, each a function as module:function: add one"
        )


def _check_user(where: str, row: Mapping[str, Any], cls: type[Any], *, has_user: bool) -> None:
    if has_user and not (isinstance(row.get("user"), str) and row["user"].strip()):
        raise EnvironmentFault(
            f"{where}: user must be a text that says who the simulated user is and wants, got {row.get('user')!r}"
        )
    if "user" in row and not has_user and "user" not in reset_arguments(cls, row):
        raise EnvironmentFault(
            f"{where}: the row says who the user is, and no model plays it; set environment.user, or leave it out"
        )
