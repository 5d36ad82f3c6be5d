"""Plays gold calls with BFCL's package alone, in its own Python: for each line of input, all calls and the check.

A line is a list of ids in JSON; the answer is the wall time, the processor time and how many are right.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "src/sgcd/act/environments/bfcl"))
tasks: Any = import_module("benchmark_server").BfclTasks()


def play(task_id: str, name: str) -> bool:
    entry, gold = tasks.entries[task_id], tasks.gold[task_id]
    category = task_id.rpartition("_")[0]
    known = {key: entry[key] for key in ("initial_config", "involved_classes")}
    for turn in gold:
        for call in turn:
            tasks.utils.execute_multi_turn_func_call(
                [call], **known, model_name=name, test_entry_id=task_id, long_context="long_context" in task_id
            )
    steps = [[[call] for call in turn] for turn in gold]
    return tasks.checker.multi_turn_checker(steps, gold, entry, category, name)["valid"]


for number, line in enumerate(sys.stdin):
    began, used = time.perf_counter(), time.process_time()
    right = sum(play(task_id, f"replay{number}") for task_id in json.loads(line))
    print(json.dumps([time.perf_counter() - began, time.process_time() - used, right]), flush=True)
