"""Makes the tasks of the supply desk, and scripted conversations in which they succeed.

Run by `make real`: python examples/real/make_data.py FOLDER
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from supply_desk import SupplyDesk

from sgcd.act.tools import build_tools

NUM_TASKS = {"train": 240, "dev": 40, "test": 100}
KINDS = ("enough", "short", "enough", "short", "sold_out")
TOOLS = [tool.schema for tool in build_tools(SupplyDesk).values()]
SYSTEM = "You run a supply desk. Find the item, then hand out what was asked for, or all that is left if that is less."
COLOURS = "black blue brown green grey orange pink purple red silver white yellow".split()
THINGS = (
    "folders", "pens", "markers", "notebooks", "envelopes", "labels", "clips", "binders", "cups", "lamps", "mats",
    "chairs", "cables", "bags", "badges", "rulers", "stamps", "baskets",
)  # fmt: skip
REQUESTS = (
    "Hi, could we have {count} {item} for the workshop on {day}?",
    "Hello, {name} here. Please give me {count} {item}.",
    "We are out of {item} upstairs. Can I get {count} of them?",
    "Good morning! I need {count} {item} by {day}, please.",
    "{name} from the second floor. {count} {item}, please, they are for the meeting on {day}.",
    "Can you spare {count} {item}? {name} has asked for them.",
)
NAMES = "Ada Bruno Carla Deniz Emil Farah Greta Hugo Ines Jonas Kira Liam Mona Nils Olga Pavel".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday".split()


def make_tasks(split: str, count: int) -> Iterator[dict[str, Any]]:
    """Tasks of a split. Request and stock never begin with the same digit, so that one digit decides."""
    rng = random.Random(f"supply desk {split}")
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        low, high = (10 * digit + rng.randrange(10) for digit in sorted(rng.sample(range(1, 10), 2)))
        asked, stock = {"enough": (low, high), "short": (high, low), "sold_out": (low, 0)}[kind]
        item = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
        yield {
            "id": f"{split}-{number:03}",
            "category": kind,
            "prompt": rng.choice(REQUESTS).format(count=asked, item=item, name=rng.choice(NAMES), day=rng.choice(DAYS)),
            "item": item,
            "count": asked,
            "shelf": f"{rng.choice('ABCDEFGH')}{rng.randrange(1, 10)}",
            "stock": stock,
        }


def right_count(task: dict[str, Any]) -> int:
    return min(task["count"], task["stock"])


def wrong_count(task: dict[str, Any]) -> int:
    """The number of the other origin; what was asked for, where nothing is left."""
    return task["count"] if not task["stock"] else max(task["count"], task["stock"])


def demonstrate(task: dict[str, Any], count: int) -> dict[str, Any]:
    """A conversation in which `count` are handed out, as chat data."""
    desk = SupplyDesk()
    desk.reset(task["item"], task["count"], task["shelf"], task["stock"])
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task["prompt"]}]

    def call(name: str, **arguments: Any) -> None:
        calls = [{"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        messages.append({"role": "tool", "content": getattr(desk, name)(**arguments)})

    call("find", item=task["item"])
    if count:
        call("hand_out", shelf=task["shelf"], count=count)
    answer = f"Here are {count} {task['item']}." if count else f"Sorry, there are no {task['item']} left."
    return {"messages": [*messages, {"role": "assistant", "content": answer}], "tools": TOOLS}


def write_data(folder: Path) -> None:
    """Tasks of three splits, and a demonstration of each task of training and of development."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in NUM_TASKS.items():
        tasks = list(make_tasks(split, count))
        write_lines(folder / f"{split}.jsonl", tasks)
        if split != "test":
            write_lines(
                folder / f"demonstrations-{split}.jsonl", (demonstrate(task, right_count(task)) for task in tasks)
            )


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/real/make_data.py FOLDER")
    write_data(Path(sys.argv[1]))
