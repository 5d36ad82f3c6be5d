"""BFCL's multi-turn tasks for `fork_server.py`. Runs in the benchmark's own Python, without sgcd.

The benchmark executes a call by `eval` of its text. `render_call` is before it: what comes from the policy is text that
parses to one function by name, with literals by name, and to the very values that were sent.
"""

import ast
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_CATEGORIES = ("base", "miss_func", "miss_param", "long_context")

_Json = dict[str, Any]
_RunLimited = Callable[[Callable[[], Any]], Any]


class RefusedCall(Exception):
    """A call that is more than a name and literals."""


def render_call(name: str, arguments: _Json) -> str:
    """The call as text that `eval` may see.

    >>> render_call("mv", {"source": "a.txt", "count": 2})
    "mv(source='a.txt',count=2)"
    >>> render_call("mv", {"a=exit(),b": 1})
    Traceback (most recent call last):
    ...
    sgcd.act.environments.bfcl.benchmark_server.RefusedCall: arguments must be literals by name
    """
    text = f"{name}({','.join(f'{key}={value!r}' for key, value in arguments.items())})"
    if parse_call(text) != (name, [], arguments):
        raise RefusedCall("arguments must be literals by name")
    return text


def parse_call(text: str) -> tuple[str, list[Any], _Json]:
    """Name, arguments by position and arguments by name of a call with literal arguments; any other text is refused.

    >>> parse_call("sort('a.txt', reverse=True)")
    ('sort', ['a.txt'], {'reverse': True})
    """
    try:
        tree = ast.parse(text, mode="eval").body
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            by_name = {_keyword_name(keyword): ast.literal_eval(keyword.value) for keyword in tree.keywords}
            return tree.func.id, [ast.literal_eval(argument) for argument in tree.args], by_name
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass
    raise RefusedCall("arguments must be literals by name")


def _keyword_name(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ValueError("**")
    return keyword.arg


class BfclTasks:
    """The tasks and their functions, as the package has them."""

    def __init__(self) -> None:
        self.utils: Any = import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils")
        self.checker: Any = import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker")
        backend = import_module("bfcl_eval.constants.executable_backend_config")
        prompts = import_module("bfcl_eval.constants.default_prompts")
        self.max_steps: int = prompts.MAXIMUM_STEP_LIMIT
        self.late_functions_prompt: str = prompts.DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_PROMPTING
        data = Path(str(import_module("bfcl_eval").__path__[0])) / "data"
        self.entries: dict[str, _Json] = {}
        self.gold: dict[str, list[list[str]]] = {}
        for category in _CATEGORIES:
            name = f"BFCL_v4_multi_turn_{category}.json"
            self.entries |= {entry["id"]: entry for entry in _read_lines(data / name)}
            self.gold |= {entry["id"]: entry["ground_truth"] for entry in _read_lines(data / "possible_answer" / name)}
        self.functions: dict[str, list[_Json]] = {}
        for class_name in sorted({name for entry in self.entries.values() for name in entry["involved_classes"]}):
            module_path = backend.CLASS_FILE_PATH_MAPPING[class_name]
            import_module(module_path)  # before the fork: no child loads it again
            file = backend.MULTI_TURN_FUNC_DOC_FILE_MAPPING[class_name]
            self.functions[class_name] = _read_lines(data / "multi_turn_func_doc" / file)

        self.utils_names: frozenset[str] = frozenset(self.utils.__dict__)

    def open_episode(self, run_limited: _RunLimited) -> "BfclEpisode":
        return BfclEpisode(self, run_limited)

    def describe(self) -> _Json:
        """Functions, tasks and gold calls."""
        types = import_module("bfcl_eval.constants.type_mappings").GORILLA_TO_OPENAPI
        return {
            "version": import_module("importlib.metadata").version("bfcl-eval"),
            "functions": self.functions,
            "types": types,
            "late_functions_prompt": self.late_functions_prompt,
            "tasks": [self._describe_task(entry) for entry in self.entries.values()],
        }

    def _describe_task(self, entry: _Json) -> _Json:
        names = {
            function["name"]: [*function["parameters"]["properties"]]
            for class_name in entry["involved_classes"]
            for function in self.functions[class_name]
        }
        return {
            "id": entry["id"],
            "classes": entry["involved_classes"],
            "late_functions": entry.get("missed_function", {}),
            "user": [[message["content"] for message in messages] for messages in entry["question"]],
            "gold_calls": [[_name_arguments(text, names) for text in turn] for turn in self.gold[entry["id"]]],
        }


def _read_lines(path: Path) -> list[_Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _name_arguments(text: str, parameter_names: dict[str, list[str]]) -> _Json:
    name, by_position, by_name = parse_call(text)
    named = dict(zip(parameter_names[name], by_position, strict=False))
    return {"name": name, "arguments": named | by_name}


class BfclEpisode:
    """One conversation: what the policy called in each of the user's turns, and the state that it changes."""

    def __init__(self, benchmark: BfclTasks, run_limited: _RunLimited) -> None:
        self.benchmark = benchmark
        self.run_limited = run_limited
        self.entry: _Json = {}
        self.gold: list[list[str]] = []
        self.steps: list[list[list[str]]] = []
        """The calls as text: of each of the user's turns, the policy's turns with calls."""

    def answer(self, request: _Json) -> _Json:
        """Carry out one request: describe, calls or verdict. The first one of a task names it."""
        if "task" in request:
            self._open(request["task"])
        match request["request"]:
            case "describe":
                return self.benchmark.describe()
            case "calls":
                return self._take_calls(request["user_turn"], request["calls"])
            case "verdict":
                return self._verdict(request["ended_turns"])
            case unknown:
                raise ValueError(f"unknown request {unknown}")

    def _open(self, task: str) -> None:
        self.entry, self.gold = self.benchmark.entries[task], self.benchmark.gold[task]
        self.steps = [[] for _ in self.gold]
        names: _Json = self.benchmark.utils.__dict__
        for name in names.keys() - self.benchmark.utils_names:  # where the package keeps the states of earlier tasks
            del names[name]

    def _take_calls(self, user_turn: int, calls: list[_Json]) -> _Json:
        step: list[str] = []
        answers = [self._call(call, step) for call in calls]
        if step:
            self.steps[user_turn].append(step)
        return {"answers": answers, "has_too_many_steps": len(self.steps[user_turn]) > self.benchmark.max_steps}

    def _call(self, call: _Json, step: list[str]) -> _Json:
        try:
            text = self.render(call)
            [content], _ = self.run_limited(lambda: self._execute([text], "policy"))
        except Exception as error:  # refused, or it took too long: the checker must not see it
            return {"content": f"Error: {error}", "is_error": True}
        step.append(text)
        return {"content": content, "is_error": content.startswith(("Error during execution", '{"error":'))}

    def render(self, call: _Json) -> str:
        """The call as text; `eval` knows more names than the task's functions."""
        classes: list[str] = self.entry["involved_classes"]
        if not any(call["name"] == f["name"] for name in classes for f in self.benchmark.functions[name]):
            raise RefusedCall(f"unknown function {call['name']}")
        return render_call(call["name"], call["arguments"])

    def _execute(self, calls: list[str], name: str) -> tuple[list[str], _Json]:
        """Results of the calls, and the instances of that name after them."""
        return self.benchmark.utils.execute_multi_turn_func_call(
            func_call_list=calls,
            initial_config=self.entry["initial_config"],
            involved_classes=self.entry["involved_classes"],
            model_name=name,
            test_entry_id=self.entry["id"],
            long_context="long_context" in self.entry["id"],
        )

    def _verdict(self, ended_turns: int) -> _Json:
        """The package's own verdict, and which of the user's turns that have ended were done right."""
        if ended_turns < len(self.gold):
            return {"is_valid": False, "reason": "unfinished", "parts": self._check_turns(ended_turns)}
        category = self.entry["id"].rpartition("_")[0]
        found = self.benchmark.checker.multi_turn_checker(self.steps, self.gold, self.entry, category, "checked")
        if found["valid"]:
            return {"is_valid": True, "reason": "", "parts": [True] * ended_turns}
        reason = found["error_type"].removeprefix("multi_turn:")
        return {"is_valid": False, "reason": reason, "parts": self._check_turns(ended_turns)}

    def _check_turns(self, ended_turns: int) -> list[bool]:
        """Whether state and results of each turn are those of the gold calls, by the checks of the package's checker.

        The checker ends at the first turn that is wrong; here the later ones are checked as well.
        """
        results: list[str] = []
        parts: list[bool] = []
        for number, (steps, gold) in enumerate(zip(self.steps[:ended_turns], self.gold, strict=False)):
            new_results, instances = self._execute([call for step in steps for call in step], "again")
            gold_results, gold_instances = self._execute(gold, "gold")
            results += new_results
            is_right = not gold or (
                bool(steps)
                and self.benchmark.checker.state_checker(instances, gold_instances)["valid"]
                and self.benchmark.checker.response_checker(results, gold_results, number)["valid"]
            )
            parts.append(is_right)
        return parts
