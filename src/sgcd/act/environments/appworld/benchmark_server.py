"""Serves worlds of AppWorld, or judges what was done in them. Runs in AppWorld's own Python, without sgcd.

`fork_server.py` serves `Worlds`. It runs twice: over data without ground truth for episodes, over whole data for
verdicts.
"""

import builtins
import faulthandler
import os
import re
import runpy
import signal
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, cast

MAX_OUTPUT = 200_000
"""Characters of one output that leave the process; what the policy sees of it is cut much shorter."""
GRACE_SECONDS = 15.0
"""So much later than its time limit, code that catches the limit's exception ends with its process."""
HANG_FILE = "hang.txt"
"""What a process writes into its folder before it ends so."""
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ")
SPLITS = ("train", "dev", "test_normal", "test_challenge")
NO_OP_FAIL = "no_op_fail"
"""The package's label of a test that fails when nothing was done."""
MIN_PRIVATE_CHARS = 4

_confine_process = runpy.run_path(str(Path(__file__).with_name("sandbox.py")))["confine"]
_Json = dict[str, Any]
_BUILTINS = cast("dict[str, Any]", vars(builtins))


class Worlds:
    """The package, loaded once. The first task is opened and closed again, so that no episode waits for that."""

    def __init__(self, root: str, code_seconds: str) -> None:
        self.root = root
        self.code_seconds = int(code_seconds)
        for name in os.environ.keys() - KEPT_VARIABLES:
            del os.environ[name]  # keys of endpoints are none of the policy's business
        os.environ["APPWORLD_ROOT"] = root
        os.chdir(root)
        for name in ("appworld.evaluator", "pytest"):
            import_module(name)  # before the fork; a verdict compares numbers by pytest
        with tempfile.TemporaryDirectory(prefix="sgcd-appworld-") as folder:
            enter_folder(folder)
            first = min(Path(root, "data/tasks").iterdir()).name
            world = self.open_world(first, folder)
            world.execute("print(apis.supervisor.show_profile())")
            world.close()
            import_module("appworld.environment").AppWorld.close_all()

    def open_world(self, task: str, folder: str) -> Any:
        world_type = import_module("appworld.environment").AppWorld
        world = world_type(task, experiment_name=folder, load_ground_truth=False, timeout_seconds=self.code_seconds)
        world.save_logs = lambda: None  # they repeat every output at every step
        return world

    def open_episode(self, run_limited: Callable[..., Any]) -> "WorldEpisode":
        """The function's limit is on processor time alone; code here may also wait, so it has one of its own."""
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        return WorldEpisode(self)


class WorldEpisode:
    """One world, or one verdict."""

    def __init__(self, worlds: Worlds) -> None:
        self.worlds = worlds
        self.world: Any = None
        self.hang_file: Any = None
        self.builtins: _Json = {}

    def answer(self, request: _Json) -> _Json:
        """Carry out one request: describe, open, execute or verdict."""
        match request["request"]:
            case "describe":
                return describe_tasks()
            case "open":
                return self._open(request["task"], request["folder"])
            case "execute":
                return self._execute(request["code"])
            case "verdict":
                self._confine(readable=[request["folder"]], writable=[])
                return judge_state(request["task"], request["folder"])
            case unknown:
                raise ValueError(f"unknown request {unknown}")

    def _open(self, task: str, folder: str) -> _Json:
        enter_folder(folder)
        silence()
        self.hang_file = Path(folder, HANG_FILE).open("wb")  # noqa: SIM115 - open as long as the process
        self._confine(readable=[], writable=[folder])
        self.world = self.worlds.open_world(task, folder)
        self.builtins = dict(_BUILTINS)
        person, apps = self.world.task.supervisor, self.world.task.app_descriptions
        return {
            "process": os.getpid(),
            "instruction": self.world.task.instruction,
            "person": {name: person[name] for name in ("first_name", "last_name", "email", "phone_number")},
            "time": self.world.task.datetime.isoformat(),
            "apps": apps,
        }

    def _confine(self, *, readable: list[str], writable: list[str]) -> None:
        libraries = {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        system = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom")
        data = os.path.realpath(Path(self.worlds.root, "data"))
        own = str(Path(__file__).parents[1])  # the package quotes the lines of every frame when a test fails
        _confine_process([*libraries, *system, own, data, *readable], [*writable, "/dev/null"])

    def _execute(self, code: str) -> _Json:
        """Run the code. Whatever it raises, and whatever it did to the package, is an output."""
        faulthandler.dump_traceback_later(
            self.worlds.code_seconds + GRACE_SECONDS, exit=True, file=self.hang_file.fileno()
        )
        try:
            output, is_completed = self._run(code)
        except BaseException as error:
            _BUILTINS.update(self.builtins)
            output, is_completed = f"Execution failed. Traceback:\n{type(error).__name__}: {error}", False
            with suppress(BaseException):
                self.world.safety_guard.disable()
                self.world.execute("pass")  # which saves the state
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
        is_error = output.startswith("Execution failed.")
        return {"output": output[:MAX_OUTPUT], "is_error": is_error, "is_completed": is_completed}

    def _run(self, code: str) -> tuple[str, bool]:
        output = self.world.execute(code)
        _BUILTINS.update(self.builtins)  # the code may have taken away what the lines after this need
        assert isinstance(output, str)
        self.world.environment_io.clear()
        return output, bool(self.world.task_completed())


def enter_folder(folder: str) -> None:
    """The one folder into which this process may write, for all that asks for one."""
    os.environ |= {"TMPDIR": folder, "SQLITE_TMPDIR": folder, "IPYTHONDIR": str(Path(folder, "ipython"))}
    tempfile.tempdir = folder


def silence() -> None:
    """Let what code writes past the package go nowhere: the server's output is a pipe, and its log a file."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def describe_tasks() -> _Json:
    """The tasks of each split, with what the tables need, and the number of APIs."""
    tasks = import_module("appworld.task")
    truths = import_module("appworld.ground_truth").GroundTruth
    splits: _Json = {}
    for split in SPLITS:
        splits[split] = []
        for task_id in tasks.load_task_ids(split):
            truth = truths.load(task_id)
            labels = [test["label"] for test in truth.test_data]
            splits[split].append(
                {
                    "id": task_id,
                    "scenario": tasks.task_id_to_generator_id(task_id),
                    "difficulty": truth.metadata["difficulty"],
                    "floor": float(NO_OP_FAIL not in labels),
                }
            )
    documents = import_module("appworld.collections.api_docs").ApiDocCollection.load()
    return {
        "version": import_module("importlib.metadata").version("appworld"),
        "apis": sum(len(apis) for apis in documents.values()),
        "splits": splits,
    }


def judge_state(task_id: str, folder: str) -> _Json:
    """The package's own verdict on the state in the folder, and the literals that no reference may contain."""
    tracker = import_module("appworld.evaluator").evaluate_task(task_id, folder, save_report=False)
    task = import_module("appworld.task").Task.load(task_id)
    truth, secrets = task.ground_truth, task.model_collection.supervisor
    return {
        "success": bool(tracker.success),
        "tests": tracker.num_tests,
        "tests_passed": tracker.pass_count,
        "difficulty": tracker.difficulty,
        "private": {
            "answer": leaves(truth.answer, 1),
            "value": leaves(truth.private_data, MIN_PRIVATE_CHARS),
            "password": [account.password for account in secrets.AccountPassword.all()],
            "card": [str(card.card_number) for card in secrets.PaymentCard.all()],
        },
    }


def leaves(value: Any, min_chars: int) -> list[str]:
    """The texts and numbers in a value of JSON, as text, without the shorter ones and plain words for truth."""
    if isinstance(value, dict | list | tuple):
        nested = cast("dict[str, Any] | list[Any] | tuple[Any, ...]", value)
        parts = nested.values() if isinstance(nested, dict) else nested
        return [leaf for part in parts for leaf in leaves(part, min_chars)]
    text = "" if value is None or isinstance(value, bool) else str(value)
    return [text] if len(text) >= min_chars and not re.fullmatch("(?i)yes|no|true|false", text) else []
