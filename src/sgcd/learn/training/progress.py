"""Between the steps of a run: restores its checkpoint, evaluates, saves, and exports its policy."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sgcd.act.settings import SiblingsSettings
from sgcd.errors import FolderError
from sgcd.learn.policy import checkpoint
from sgcd.learn.policy.checkpoint import BestStep, TrainerState
from sgcd.learn.policy.load import save_policy
from sgcd.learn.policy.teacher_policies import MovingAverage
from sgcd.learn.settings import CheckpointSettings, OptimizerSettings
from sgcd.learn.training.context import RunContext, TrainerCallback
from sgcd.learn.training.optimizer import MasterAdamW, build_optimizer
from sgcd.learn.training.timers import StepTimer, run_in_model_thread
from sgcd.measure.evaluate import evaluate_policy, held_out_tasks
from sgcd.measure.settings import EvaluationSettings
from sgcd.measure.summary import summarise_evaluation
from sgcd.storage.atomic import SCHEMA, atomic_folder
from sgcd.storage.manifest import find_folder_damage, write_folder_manifest
from sgcd.storage.run_folder import TRAINED_FILE, RunFolder
from sgcd.storage.verify import check_resumable_state, remove_damaged_best

_T = TypeVar("_T")


class ProgressConfig(Protocol):
    """The part of a recipe that is read between steps."""

    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def siblings(self) -> SiblingsSettings: ...
    @property
    def evaluation(self) -> EvaluationSettings: ...
    @property
    def checkpoint(self) -> CheckpointSettings: ...


class RunProgress:
    """The state of a run after its last step, and what is kept of it in the run's folder."""

    state = TrainerState()
    optimizer: MasterAdamW
    average: MovingAverage | None = None
    """Of the policy, where a teacher is it."""

    def __init__(
        self, config: ProgressConfig, context: RunContext, callback: TrainerCallback, *, folder: RunFolder
    ) -> None:
        self.config = config
        self.context = context
        self.callback = callback
        self.folder = folder
        self.timer = StepTimer(context.model_thread, callback.on_phase)

    def restore(self, optimizer: OptimizerSettings) -> None:
        """Make the optimizer, and load the newest checkpoint if there is one; drop what was written after it."""
        model: Any = self.context.policy.model
        model.eval()  # without dropout, log-probs before and after an update are of one distribution
        self.optimizer = build_optimizer(model, optimizer)
        steps = self.folder.checkpoint_steps()
        if steps and steps[-1] > self.config.steps:
            raise FolderError(
                f"{self.folder.path}: this run has done {steps[-1]} steps already, expected steps={steps[-1]} or more, "
                f"got steps={self.config.steps}"
            )
        check_resumable_state(self.folder)
        self.state = (
            checkpoint.load_checkpoint(self.folder, self.context.policy, self.optimizer, self.average) or TrainerState()
        )
        self.folder.rewind(self.state.step if steps else -1)
        remove_damaged_best(self.folder, self.state.step)
        checkpoint.link_best(self.folder, self.state)

    async def run_in_model_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """Do something with the model, in its thread."""
        return await run_in_model_thread(self.context.model_thread, function, *args)

    def is_evaluation_due(self) -> bool:
        """Before the first step, every `evaluation.every` steps and after the last step."""
        return self.state.step % self.config.evaluation.every == 0 or self.state.step == self.config.steps

    async def evaluate_if_due(self) -> None:
        """Play the held-out tasks."""
        config, context, step = self.config, self.context, self.state.step
        if not self.is_evaluation_due() or not held_out_tasks(context.task_suite, config.evaluation):
            return
        with self.timer.phase("evaluation"):
            play_context = context.play_context(config.siblings.limits)
            rows = await evaluate_policy(play_context, config.evaluation, seed=config.seed, step=step)
            if not rows:
                return
            self.folder.append_evaluation(rows)
            summary = summarise_evaluation(rows)
        modes = summary["modes"]
        score = modes["sampled" if "sampled" in modes else "greedy"]["overall"]["value"]
        best = self.state.best
        if score is not None and (best is None or score > best.score):  # the first wins a tie
            self.state = replace(self.state, best=BestStep(step, score))
        self.callback.on_evaluation(summary)

    async def save_if_due(self) -> None:
        """Save every `checkpoint.every` steps, after the last step, and when the policy is the best so far."""
        step, best = self.state.step, self.state.best
        new_best = best is not None and best.step == step
        if step % self.config.checkpoint.every == 0 or step == self.config.steps or new_best:
            with self.timer.phase("saving"):
                await self.run_in_model_thread(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        checkpoint.save_checkpoint(
            self.folder,
            self.context.policy,
            self.optimizer,
            state=self.state,
            average=self.average,
            facts=self.context.model_names,
        )
        checkpoint.link_best(self.folder, self.state)
        checkpoint.prune_checkpoints(self.folder, self.config.checkpoint.keep)

    async def export_policy(self) -> None:
        """Write the last step's policy as anyone would load it, unless it lies there whole."""
        if not has_exported(self.folder, self.state.step):
            with self.timer.phase("saving"):
                await self.run_in_model_thread(self._write_policy)

    def _write_policy(self) -> None:
        with atomic_folder(self.folder.policy_path) as folder:
            save_policy(
                self.context.policy,
                folder,
                {"steps": self.state.step, "seed": self.config.seed, **self.context.model_names},
            )
            (folder / TRAINED_FILE).write_text(json.dumps({"schema": SCHEMA, "step": self.state.step}) + "\n")
            write_folder_manifest(folder)


def has_exported(folder: RunFolder, step: int) -> bool:
    """Whether the policy of a step lies whole in the run's folder."""
    policy = folder.policy_path
    try:
        if json.loads((policy / TRAINED_FILE).read_bytes())["step"] != step:
            return False  # without reading its weights
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return not any(find_folder_damage(policy, needs_manifest=folder.has_checksums))
