"""Plays walkthroughs with TextWorld alone, in its own Python: for each path of a game on standard input, its steps.

The answer is the wall time and the processor time of the steps in seconds.
"""

import json
import sys
import time
from importlib import import_module
from typing import Any

textworld: Any = import_module("textworld")
infos = textworld.EnvInfos(won=True, lost=True, objective=True, extras=["walkthrough"])
for line in sys.stdin:
    game = textworld.start(line.strip(), infos)
    commands = game.reset()["extra.walkthrough"]
    began, used = time.perf_counter(), time.process_time()
    for command in commands:
        game.step(command)
    print(json.dumps([time.perf_counter() - began, time.process_time() - used]), flush=True)
    game.close()
