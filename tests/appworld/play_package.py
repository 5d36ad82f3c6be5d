"""Plays code with AppWorld alone and judges it with AppWorld alone. Runs in AppWorld's Python.

python play_package.py ROOT < [{"task": ..., "code": ...}]
"""

import json
import os
import sys
from importlib import import_module


def main(root: str) -> None:
    os.environ["APPWORLD_ROOT"] = root
    os.chdir(root)
    plays = json.load(sys.stdin)
    world_type = import_module("appworld.environment").AppWorld
    outputs = list[str]()
    for play in plays:
        world = world_type(play["task"], experiment_name="own", load_ground_truth=False)
        outputs.append(world.execute(play["code"]))
        world.close()
        world_type.close_all()
    found = import_module("appworld.evaluator").evaluate_tasks(
        [play["task"] for play in plays], "own", save_reports=False
    )
    passed = {task: [part["num_tests"], len(part["passes"])] for task, part in found["individual"].items()}
    print(json.dumps({"outputs": outputs, "aggregate": found["aggregate"], "passed": passed}))


if __name__ == "__main__":
    main(sys.argv[1])
