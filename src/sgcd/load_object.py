"""Import a class or a function that a recipe or a task names as `module:name`."""

import inspect
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from sgcd.errors import RecipeError, SgcdError
from sgcd.text import describe_exception


def load_object(where: str, name: str) -> Any:
    """Import `module:name`; the current folder is on the path."""
    module_name, _, object_name = name.partition(":")
    working_folder = str(Path.cwd())
    if working_folder not in sys.path:
        sys.path.append(working_folder)  # at the end: nothing here may hide an installed package
    try:
        module = import_module(module_name)
    except Exception as problem:
        raise RecipeError(
            f"{where}: {module_name} cannot be imported ({describe_exception(problem)}); expected a module in "
            f"{working_folder} or installed"
        ) from problem
    if not object_name or not hasattr(module, object_name):
        close_names = get_close_matches(object_name, dir(module), 1)
        hint = f"; did you mean {close_names[0]}?" if close_names else "; expected module:name"
        raise RecipeError(f"{where}: {module_name} has no {object_name!r}{hint}")
    return getattr(module, object_name)


def load_class(where: str, name: str, *, method: str, expected: str, fault: type[SgcdError]) -> type[Any]:
    """Import a class that has `method` and can be made without arguments; another object is a `fault`."""
    cls = load_object(where, name)
    if not isinstance(cls, type):
        raise fault(f"{where}: {name} is not a class; expected module:Class")
    if not callable(getattr(cls, method, None)):
        raise fault(f"{where}: {name} has no {method}(); expected {expected}")
    try:
        inspect.signature(cls).bind()
    except ValueError:
        pass  # a class of a compiled module may have no signature
    except TypeError as problem:
        raise fault(f"{where}: {name} cannot be made without arguments ({problem}); give each a default") from problem
    return cls
