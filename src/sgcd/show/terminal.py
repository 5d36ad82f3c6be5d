"""Live progress of a run: one moving display in a terminal, one plain line for each step elsewhere."""

from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sgcd.measure import health
from sgcd.show.tables import JsonMapping, describe_calls, floor_column, format_interval, format_number
from sgcd.storage.metrics import StepMetrics


class Terminal:
    """Shows a run's steps after they are on disk.

    A line of a step: `step  3/40  success .430  8 of 13 tasks mixed  loss .013  gradient .310  2.1 s`
    """

    def __init__(self, console: Console, steps: int) -> None:
        self.console = console
        self.steps = steps
        self.step = 0
        self.phase = "starting"
        self.rows: list[StepMetrics] = []
        self.live = Live(console=console, get_renderable=self._display, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Terminal":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()

    def on_phase(self, name: str) -> None:
        self.phase = name

    def on_step(self, row: StepMetrics) -> None:
        self.step = row.step
        self.rows.append(row)
        if not self.console.is_terminal:
            for line in self._step_lines(row):
                self.print_line(line)

    def on_evaluation(self, summary: JsonMapping) -> None:
        for mode, mode_summary in summary["modes"].items():
            tasks = f"{mode_summary['overall']['tasks']} {summary['split']} tasks"
            floor = "".join(f"; doing nothing: {cell}" for cell in floor_column(summary, mode_summary["overall"]))
            self.print_line(
                f"after step {summary['step']}: {tasks}, {mode}: {format_interval(mode_summary['overall'])}{floor}"
            )

    def on_dev_loss(self, step: int, loss: float) -> None:
        """The loss on held-out conversations."""
        self.print_line(f"after step {step}: loss on dev conversations {format_number(loss)}")

    def print_line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _step_lines(self, row: StepMetrics) -> list[str]:
        """The step's numbers on one line, and its warnings below."""
        batch = row.supervised
        pairs = f", {batch.pairs} with pairs" if batch and batch.pairs else ""
        parts = [
            f"step {row.step:>{len(str(self.steps))}}/{self.steps}",
            f"epoch {batch.epoch}, {batch.examples} conversations{pairs}, {row.tokens_learnt} tokens"
            if batch
            else f"success {format_number(row.success)}  {row.mixed} of {row.tasks} tasks mixed",
            "no update" if row.skipped else f"loss {format_number(row.loss)}  gradient {format_number(row.grad_norm)}",
            *([f"credit on {row.credit.credited} of {row.credit.creditable} tokens"] if row.credit else []),
            *(describe_calls(usage, role) for role, usage in row.endpoint_usage.items()),
            f"{row.seconds['total']:.1f} s",
        ]
        return ["  ".join(parts), *(f"  {warning}" for warning in health.step_warnings(row))]

    def _display(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self.steps, completed=self.step, width=30)
        grid.add_row(f"step {self.step} of {self.steps}", bar, self.phase, self._time_left())
        return Group(grid, *map(Text, self._step_lines(self.rows[-1]) if self.rows else ()))

    def _time_left(self) -> str:
        """The time that the remaining steps will take, by the mean of the steps shown so far."""
        if not self.rows:
            return ""
        seconds_per_step = sum(row.seconds["total"] for row in self.rows) / len(self.rows)
        minutes, seconds = divmod(round(seconds_per_step * (self.steps - self.step)), 60)
        return f"about {minutes}:{seconds:02d} left"
