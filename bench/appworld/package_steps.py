"""Takes steps with AppWorld alone: one for each line of standard input. Runs in AppWorld's Python.

python package_steps.py ROOT TASK CODE
"""

import os
import sys
import tempfile
from importlib import import_module


def main(root: str, task: str, code: str) -> None:
    os.environ["APPWORLD_ROOT"] = root
    with tempfile.TemporaryDirectory() as folder:
        world = import_module("appworld.environment").AppWorld(task, experiment_name=folder, load_ground_truth=False)
        for _ in sys.stdin:
            world.execute(code)
            print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
