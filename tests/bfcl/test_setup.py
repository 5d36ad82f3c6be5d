"""What `sgcd setup bfcl` and a recipe refuse, the schemas and the splits; without the benchmark."""

from collections import Counter
from pathlib import Path

import pytest

from helpers.benchmarks import EVALUATE, Capture, check_that_other_folders_are_refused, refused, write_recipe
from sgcd.act.environments.bfcl.description import parse_tasks, split_of, tool_schema

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def test_a_folder_of_other_things_is_left_alone(capsys: Capture) -> None:
    check_that_other_folders_are_refused(capsys, "bfcl")


def test_a_recipe_names_what_its_benchmark_lacks(capsys: Capture) -> None:
    write_recipe("bfcl")
    expected = "environment.folder: .venv-bfcl holds no BFCL; make it: sgcd setup bfcl --folder .venv-bfcl"
    assert expected in refused(capsys, *EVALUATE)
    Path(".venv-bfcl").mkdir()
    Path(".venv-bfcl/bfcl.json").write_text("{}")
    assert "bfcl.json is of another version of sgcd; make it anew: sgcd setup bfcl" in refused(capsys, *EVALUATE)


def test_a_number_has_one_split() -> None:
    assert Counter(map(split_of, range(200))) == {"train": 120, "dev": 20, "test": 60}


def test_types_become_those_of_json_schema() -> None:
    types = {"dict": "object", "float": "number", "array": "array", "string": "string"}
    inner = {"type": "dict", "properties": {"weight": {"type": "float", "description": "in kg"}}}
    parameters = {"type": "dict", "properties": {"items": {"type": "array", "items": inner}, "any": {}}, "required": []}
    schema = tool_schema({"name": "send", "description": "Send.", "parameters": parameters, "response": {}}, types)
    assert schema == {
        "type": "function",
        "function": {
            "name": "send",
            "description": "Send.",
            "parameters": {
                "type": "object",
                "properties": {
                    "items": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"weight": {"type": "number", "description": "in kg"}},
                        },
                    },
                    "any": {"type": "string"},
                },
                "required": [],
            },
        },
    }


def test_a_function_that_comes_late_is_in_the_user_s_words_and_not_among_the_first_tools() -> None:
    functions = [
        {"name": name, "description": name, "parameters": {"type": "dict", "properties": {}}} for name in ("cd", "sort")
    ]
    task = {"id": "multi_turn_miss_func_7", "classes": ["Files"], "late_functions": {"1": ["sort"]}}
    task |= {"user": [["Sort it."], []], "gold_calls": [[], [{"name": "sort", "arguments": {"file": "final.txt"}}]]}
    description = {"types": {"dict": "object"}, "functions": {"Files": functions}, "tasks": [task]}
    [read] = parse_tasks({**description, "late_functions_prompt": "{functions}\nnew ones"}).values()
    assert [tool["function"]["name"] for tool in read.tools] == ["cd"]
    assert read.user[1].startswith('[{"name": "sort"')
    assert read.user[1].endswith("\nnew ones")
    assert (read.category, read.split) == ("miss_func", "test")
    assert read.private_literals == ("final.txt",)
