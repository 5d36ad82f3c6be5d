"""Learns from conversations: the mean of -log p over the tokens of assistant turns, one optimizer step a batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from sgcd.learn.scoring.forward import (
    ForwardConfig,
    build_batch,
    score_logprobs,
    split_micro_batches,
)
from sgcd.learn.settings import OptimizerSettings, ScoringSettings, SurrogateSettings
from sgcd.learn.supervised.data import SupervisedData
from sgcd.learn.training.context import RunContext, TrainerCallback
from sgcd.learn.training.gradient import GradientAccumulator, gradient_checkpointing
from sgcd.learn.training.optimizer import optimizer_step
from sgcd.learn.training.progress import ProgressConfig, RunProgress
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.timers import peak_memory
from sgcd.learn.training.trainer import TrainResult
from sgcd.records import Rollout
from sgcd.storage.metrics import OptimizerMetrics, StepMetrics, SupervisedMetrics
from sgcd.storage.run_folder import RunFolder

DEV_LOSS_FILE = "dev-loss.jsonl"
"""One row for each measurement of the loss on held-out conversations."""


class SupervisedConfig(ProgressConfig, Protocol):
    """The part of a recipe that supervised training reads, besides its own section."""

    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def scoring(self) -> ScoringSettings: ...


class SupervisedCallback(TrainerCallback, Protocol):
    """Receives a supervised run's progress."""

    def on_dev_loss(self, step: int, loss: float) -> None:
        """The row of dev-loss.jsonl."""
        ...


class SupervisedTrainer:
    """The result depends only on recipe, conversations and folder. One thread uses the model."""

    def __init__(
        self,
        config: SupervisedConfig,
        context: RunContext,
        callback: SupervisedCallback,
        *,
        folder: RunFolder,
        data: SupervisedData,
    ) -> None:
        self.context = context
        self.callback = callback
        self.folder = folder
        self.train, self.dev = data.data.rollouts, data.dev.rollouts
        self.progress = RunProgress(config, context, callback, folder=folder)
        self.order = data.batch_order(config.seed)
        self.pairs, self.pair_order = data.reading.pairs, data.pair_order(config.seed)
        own = {"lr": data.settings.lr, "warmup": data.settings.warmup}
        self.optimizer_settings = config.optimizer.model_copy(update=own)
        self.forward_config = ForwardConfig.build(1.0, config.optimizer.micro_batch_tokens, config.scoring)

    async def run(self) -> TrainResult:
        """Train from the newest checkpoint, or from the start, to the last step."""
        async with self.context.open_endpoints(self.folder):
            progress = self.progress
            await progress.run_in_model_thread(self._restore)
            start = progress.state.step
            if not self.folder.checkpoint_steps():
                await self._validate()
                await progress.save_if_due()
            for step in range(start + 1, progress.config.steps + 1):
                await self._train_step(step)
            await progress.export_policy()
            return TrainResult(progress.state.step, progress.state.step - start)

    def _restore(self) -> None:
        self.progress.restore(self.optimizer_settings)
        has_checkpoint = bool(self.folder.checkpoint_steps())
        self.folder.row_files.rewind(DEV_LOSS_FILE, self.progress.state.step if has_checkpoint else -1)

    async def _train_step(self, step: int) -> None:
        progress, timer = self.progress, self.progress.timer
        conversations = [self.train[index] for index in self.order.batch(step)]
        pairs = [self.pairs[index] for index in self.pair_order.batch(step)] if self.pair_order else []
        rollouts = [*conversations, *(one for pair in pairs for one in pair)]
        optimizer_metrics = await timer.run_in_model_thread("training", self._update_policy, rollouts, step)
        progress.state = replace(progress.state, step=step)
        await self._validate()
        row = StepMetrics(
            step=step,
            **dict(optimizer_metrics),
            tokens_learnt=sum(rollout.num_policy_tokens for rollout in rollouts),
            peak_memory=peak_memory(),
            supervised=SupervisedMetrics(
                epoch=self.order.epoch_of(step),
                examples=len(conversations),
                pairs=len(pairs),
                padding=padding_share(self.context.policy.model, rollouts, self.forward_config),
            ),
            seconds=timer.pop_seconds(),
        )
        self.folder.append_metrics(row)
        self.callback.on_step(row)
        await progress.save_if_due()

    def _update_policy(self, rollouts: Sequence[Rollout], step: int) -> OptimizerMetrics:
        gradient = accumulate_supervised(self.context.policy.model, rollouts, self.forward_config)
        metrics = optimizer_step(self.progress.optimizer, gradient, self.optimizer_settings, step)
        return metrics.model_copy(update={"ratio": None, "clip_share": None})  # there is no older policy

    async def _validate(self) -> None:
        """Measure the loss on held-out conversations, and play the held-out tasks, where that is due."""
        step = self.progress.state.step
        if self.dev and self.progress.is_evaluation_due():
            loss, num_tokens = await self.progress.timer.run_in_model_thread("evaluation", self._measure_dev_loss)
            self.folder.row_files.append(DEV_LOSS_FILE, [{"step": step, "loss": loss, "tokens": num_tokens}])
            self.callback.on_dev_loss(step, loss)
        await self.progress.evaluate_if_due()

    def _measure_dev_loss(self) -> tuple[float, int]:
        logprobs = score_logprobs(self.context.policy.model, self.dev, self.forward_config)
        num_tokens = sum(rollout.num_policy_tokens for rollout in self.dev)
        return -sum(float(row.sum(dtype="float64")) for row in logprobs) / num_tokens, num_tokens


def accumulate_supervised(model: Any, rollouts: Sequence[Rollout], config: ForwardConfig) -> GradientAccumulator:
    """The gradient of sum_t -log p(y_t) / T over the T tokens of the batch that are learned; logits come in chunks."""
    size = BatchSize.of(rollouts)
    accumulator = GradientAccumulator(model=model, surrogate=SurrogateSettings(), size=size, config=config)
    with gradient_checkpointing(model):
        for indices in split_micro_batches(model, rollouts, config):
            forward = accumulator.forward([rollouts[index] for index in indices])
            loss = -forward.logprobs.sum() / size.num_tokens
            loss.backward()
            accumulator.loss += float(loss.detach())
            accumulator.entropy_sum += float(forward.entropy.sum())
    return accumulator


def padding_share(model: Any, rollouts: Sequence[Rollout], config: ForwardConfig) -> float:
    """Share of padding in the tokens that the forward passes of a batch read."""
    batches = [
        build_batch(model, [rollouts[index] for index in indices], config)
        for indices in split_micro_batches(model, rollouts, config)
    ]
    return sum(batch.num_padding for batch in batches) / sum(batch.num_tokens for batch in batches)
