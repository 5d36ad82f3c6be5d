"""The two walks of docs/architecture.md, held against a real step: who calls whom, and how much it takes."""

import asyncio
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from helpers.tiny_policy import Watcher

ROOT = Path(__file__).resolve().parents[1]
SOURCE = f"{ROOT.as_posix()}/src/sgcd/"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PASS_ON = ("learn/training/timers.py", "act/timeouts.py")
KEYS = [
    "steps=1", "siblings.groups=1", "siblings.group_size=6", "scoring.reading_every=0",
    "evaluation.tasks=1", "evaluation.trials=0", "evaluation.every=9",
]  # fmt: skip
Edge = tuple[str, str | None]
MAX_CALLS = {"rollout": 15, "reference": 13}


def walk(name: str) -> list[str]:
    [block] = re.findall(rf"```walk {name}\n(.*?)```", PAGE, re.DOTALL)
    return [line.split()[0] for line in block.splitlines() if line.strip()]


def function_of(frame: FrameType) -> str | None:
    """`path::name` of a function of the package; None for all others and for those that only pass a call on."""
    path = frame.f_code.co_filename
    function = f"{path.removeprefix(SOURCE)}::{frame.f_code.co_qualname}"
    return function if path.startswith(SOURCE) and not function.startswith(PASS_ON) else None


def is_private(function: str) -> bool:
    """A private helper, a closure or a comprehension: read as a part of its file."""
    return "<locals>" in function or any(part.startswith("_") for part in function.split("::")[1].split("."))


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> set[Edge]:
    """Each function that a step of SGCD calls, with the public function of the package that called it."""
    from sgcd.assemble import assemble, collect_facts
    from sgcd.contrast import text_thread
    from sgcd.learn.training.trainer import Trainer
    from sgcd.recipe.load import load_recipe
    from sgcd.recipe.schema import dump_recipe
    from sgcd.storage.run_folder import RunFolder

    recipe = load_recipe(ROOT / "recipes/lab/sgcd.yaml", KEYS)
    context = assemble(recipe)
    path = tmp_path_factory.mktemp("walk") / "run"
    folder = RunFolder.create(path, dump_recipe(recipe), collect_facts(recipe, context))
    found: set[Edge] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (called := function_of(frame)) is None:
            return
        caller = frame.f_back
        while caller and ((name := function_of(caller)) is None or is_private(name)):
            caller = caller.f_back
        found.add((called, function_of(caller) if caller else None))

    threading.setprofile(note)
    sys.setprofile(note)
    patch = pytest.MonkeyPatch()
    patch.setattr(text_thread, "_TEXT_THREAD", ThreadPoolExecutor(1))  # a thread from before is not traced
    try:
        asyncio.run(Trainer(recipe, context, Watcher(), folder=folder).run())
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        context.model_thread.shutdown()
        text_thread._TEXT_THREAD.shutdown()
        patch.undo()
    assert folder.read_credit(1), "the step learned from nothing; take another seed"
    return found


@pytest.mark.parametrize("name", ["rollout", "reference"])
def test_a_real_step_walks_as_the_page_says(name: str, edges: set[Edge]) -> None:
    listed = walk(name)
    assert 5 < len(listed) <= MAX_CALLS[name]
    for number, function in enumerate(listed):
        callers = {caller for called, caller in edges if called == function}
        assert callers, f"{function} was never called"
        if number:
            above = {None, *listed[:number]}
            assert callers & above, f"{function} is called by {callers}, none of which stands above it"


def test_a_walk_with_a_hole_is_noticed(edges: set[Edge]) -> None:
    listed = [function for function in walk("rollout") if not function.endswith("play_groups")]
    callers = {caller for called, caller in edges if called.endswith("::play_cohort")}
    assert callers.isdisjoint({None, *listed[:2]})
