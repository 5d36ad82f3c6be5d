"""The two walks of docs/architecture.md, held against a real step: who calls whom, and what passes."""

import asyncio
import dataclasses
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
MAX_RECORDS = 10
GIVEN = {"Task", "TaskCursor", "PlayContext", "ForwardConfig", "TeacherPolicies", "ReferenceBuilder"}
"""What a step is given, and how it works; no record of what becomes of a rollout."""
OF_THE_STEP = {"CollectedGroups"}
"""Records of all groups of a step."""
BACKWARD = "learn/training/gradient.py::GradientAccumulator.backward"


@dataclass
class Traced:
    """What a real step did."""

    edges: set[Edge] = field(default_factory=set[Edge])
    """Each function that it called, with the public function of the package that called it."""
    records: set[str] = field(default_factory=set[str])
    """The records that the functions of the rollout's walk got or returned, up to the first gradient."""


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


def records_in(value: Any) -> Iterator[str]:
    """Names of the frozen dataclasses of the package that a value is or holds."""
    if isinstance(value, (list, tuple, dict)):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from records_in(one)
    elif type(value).__module__.startswith("sgcd.") and dataclasses.is_dataclass(value):
        parameters: Any = type(value).__dict__["__dataclass_params__"]
        if parameters.frozen:
            yield type(value).__name__


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A step of SGCD in the lab."""
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
    found, on_the_way = Traced(), {*walk("rollout")}

    def note(frame: FrameType, event: str, passed: Any) -> None:
        if event not in ("call", "return") or (called := function_of(frame)) is None:
            return
        if called in on_the_way:
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            values = [frame.f_locals.get(name) for name in names] if event == "call" else [passed]
            found.records.update(name for value in values for name in records_in(value))
            if called == BACKWARD:
                on_the_way.clear()
        if event == "return":
            return
        caller = frame.f_back
        outer, *inner = (function_of(caller) or "" if caller else "").split(".<locals>")
        if inner:  # a closure is read with the function that it stands in
            found.edges.add((called, outer))
        while caller and ((name := function_of(caller)) is None or is_private(name)):
            caller = caller.f_back
        found.edges.add((called, function_of(caller) if caller else None))

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
def test_a_real_step_walks_as_the_page_says(name: str, traced: Traced) -> None:
    listed = walk(name)
    assert 5 < len(listed) <= MAX_CALLS[name]
    for number, function in enumerate(listed):
        callers = {caller for called, caller in traced.edges if called == function}
        assert callers, f"{function} was never called"
        if number:
            above = {None, *listed[:number]}
            assert callers & above, f"{function} is called by {callers}, none of which stands above it"


def test_the_records_of_a_rollout_are_those_on_the_page(traced: Traced) -> None:
    listed = walk("records")
    assert len(listed) <= MAX_RECORDS
    assert {record.split("::")[1] for record in listed} == traced.records - GIVEN - OF_THE_STEP


def test_a_walk_with_a_hole_is_noticed(traced: Traced) -> None:
    listed = [function for function in walk("rollout") if not function.endswith("play_groups")]
    callers = {caller for called, caller in traced.edges if called.endswith("::play_cohort")}
    assert callers.isdisjoint({None, *listed[:2]})
