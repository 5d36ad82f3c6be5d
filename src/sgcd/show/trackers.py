"""Sends a run's numbers and samples of its rollouts to TensorBoard, trackio or Weights & Biases while it trains.

Each tracker has a thread of its own. One that fails or hangs costs a warning, and the run goes on without it.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from hashlib import sha256
from html import escape
from importlib import import_module
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from rich.console import Console

from sgcd.errors import FolderError, RecipeError
from sgcd.records import Rollout
from sgcd.settings import TrackerName
from sgcd.show.escape_text import escape_text
from sgcd.show.run_numbers import collect_evaluation_numbers, collect_step_numbers
from sgcd.show.terminal import Terminal
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

_logger = logging.getLogger(__name__)
_PROJECT = "sgcd"
_MAX_SAMPLE_CHARS = 20_000
_CLOSE_SECONDS = 30.0
"""How long the end of a run waits for a tracker."""


class Tracker(Protocol):
    """What one of the libraries is used for."""

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None: ...

    def close(self) -> None: ...


class TensorBoardTracker:
    """Event files in the run's folder; those of steps that a resumed run repeats are purged."""

    def __init__(self, folder: RunFolder) -> None:
        board: Any = import_module("torch.utils.tensorboard")
        steps = folder.checkpoint_steps()
        log_dir = str(folder.path / "trackers" / "tensorboard")
        self._writer = board.SummaryWriter(log_dir, purge_step=steps[-1] + 1 if steps else None)

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        for name, text in texts.items():
            self._writer.add_text(name, "\n".join(f"    {line}" for line in text.split("\n")), step)  # as code
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class TrackioTracker:
    """A run of the project sgcd where trackio keeps its runs; `trackio show` opens them."""

    def __init__(self, folder: RunFolder) -> None:
        self._trackio: Any = import_module("trackio")
        recipe = dict(folder.read_recipe())
        self._run = self._trackio.init(_PROJECT, name=name_run(folder), config=recipe, resume="allow", embed=False)

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        samples = {name: self._trackio.Markdown(f"<pre>{escape(text)}</pre>") for name, text in texts.items()}
        self._run.log({**numbers, **samples}, step=step)

    def close(self) -> None:
        self._run.finish()


class WandbTracker:
    """A run of the project sgcd, in the run's folder; it is offline unless WANDB_MODE says otherwise."""

    def __init__(self, folder: RunFolder) -> None:
        self._wandb: Any = import_module("wandb")
        path = folder.path / "trackers"
        path.mkdir(exist_ok=True)
        name = name_run(folder)
        self._run = self._wandb.init(
            project=_PROJECT,
            name=name,
            id=name.rpartition("-")[2],
            resume="allow",
            dir=str(path),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(folder.read_recipe()),
            settings=self._wandb.Settings(console="off", silent=True),
        )

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        samples = {name: self._wandb.Html(f"<pre>{escape(text)}</pre>", inject=False) for name, text in texts.items()}
        self._run.log({**numbers, **samples}, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[TrackerName, tuple[str, Callable[[RunFolder], Tracker]]] = {
    "tensorboard": ("tensorboard", TensorBoardTracker),
    "trackio": ("trackio", TrackioTracker),
    "wandb": ("wandb", WandbTracker),
}
"""The module that a tracker needs, and what makes it."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse a tracker whose library is not installed, before anything is trained."""
    for name in names:
        if find_spec(TRACKERS[name][0]) is None:
            raise RecipeError(
                f"trackers: {name} is not installed; expected its library, pip install {name}, or leave it out of "
                "trackers"
            )


def name_run(folder: RunFolder) -> str:
    """The folder's name and a hash of where it is and what it began with, the same after a resume."""
    path = folder.path.resolve()
    key = f"{path}\n".encode() + (path / "facts.json").read_bytes()
    return f"{path.name}-{sha256(key).hexdigest()[:10]}"


class _Entry(NamedTuple):
    step: int
    numbers: Mapping[str, float]
    has_samples: bool = False


class TrackedTerminal(Terminal):
    """A terminal whose numbers also go to trackers; its end waits until they are sent, but not for ever."""

    def __init__(self, console: Console, steps: int, *, folder: RunFolder, trackers: Sequence[TrackerName]) -> None:
        super().__init__(console, steps)
        self._threads = [_TrackerThread(name, folder) for name in dict.fromkeys(trackers)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        for thread in self._threads:
            thread.entries.put(None)
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)
            if thread.is_alive():
                _logger.warning(f"tracker {thread.name}: has not ended after {_CLOSE_SECONDS:g} s; the run leaves it")

    def on_step(self, row: StepMetrics) -> None:
        super().on_step(row)
        self._send(row.step, {f"train/{name}": value for name, value in collect_step_numbers(row).items()})

    def on_evaluation(self, summary: Mapping[str, Any]) -> None:
        super().on_evaluation(summary)
        self._send(summary["step"], collect_evaluation_numbers(summary), has_samples=True)

    def on_dev_loss(self, step: int, loss: float) -> None:
        super().on_dev_loss(step, loss)
        self._send(step, {"dev/loss": loss})

    def _send(self, step: int, numbers: Mapping[str, float], has_samples: bool = False) -> None:
        named = {name.replace(" ", "_"): value for name, value in numbers.items()}
        for thread in self._threads:
            thread.entries.put(_Entry(step, named, has_samples))


class _TrackerThread(Thread):
    """Makes a tracker and feeds it until it fails."""

    def __init__(self, name: TrackerName, folder: RunFolder) -> None:
        super().__init__(name=name, daemon=True)
        self.tracker_name: TrackerName = name
        self.path = folder.path
        self.entries: SimpleQueue[_Entry | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        try:
            folder = RunFolder.open(self.path)
            with redirect_stdout(sys.stderr):  # results alone go to standard output
                tracker = TRACKERS[self.tracker_name][1](folder)
            while entry := self.entries.get():
                texts = sample_rollouts(folder, entry.step) if entry.has_samples else {}
                tracker.log(entry.step, entry.numbers, texts)
            with redirect_stdout(sys.stderr):
                tracker.close()
        except Exception as problem:
            _logger.warning(f"tracker {self.tracker_name}: {problem}; the run goes on without it")


def sample_rollouts(folder: RunFolder, step: int) -> dict[str, str]:
    """One success and one failure of a step as text; nothing where the step's rollouts are not there."""
    try:
        groups = folder.read_rollouts(step)
    except FolderError:
        return {}
    rollouts = [rollout for group in groups for rollout in group.group.rollouts]
    samples: dict[str, str] = {}
    for outcome in (True, False):
        if chosen := next((rollout for rollout in rollouts if rollout.success == outcome), None):
            samples[f"rollouts/{'success' if outcome else 'failure'}"] = _describe_rollout(chosen)
    return samples


def _describe_rollout(rollout: Rollout) -> str:
    lines = [f"task {rollout.task}, sibling {rollout.sibling}, {rollout.end_reason}"]
    lines += [f"[{message['role']}] {message.get('content') or ''}" for message in rollout.messages]
    return escape_text("\n".join(lines))[:_MAX_SAMPLE_CHARS]
