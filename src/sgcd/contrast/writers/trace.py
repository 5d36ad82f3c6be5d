"""The trace writer: shows a successful attempt itself, with its literals masked, in place of sentences about it."""

from collections.abc import Sequence

from sgcd.align import total_similarity
from sgcd.contrast.steps import step_similarity
from sgcd.contrast.trace import Trace, render_trace
from sgcd.contrast.writers import WriterFailed


class TraceWriter:
    """Writes the trace of the success that is nearest to the failures: what it does differs from them in least.

    The values that it shows are those outside the literals. The attempt of a failure is never shown.
    """

    name = "trace"
    reads_steps = True

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        failures = [trace for trace in traces if not trace.success]
        failed_texts = {_render_without_outcome(failure) for failure in failures}
        differing = [trace for trace in traces if trace.success and _render_without_outcome(trace) not in failed_texts]
        if not differing:
            raise WriterFailed("nothing parts them: each success looks like a failure once literals are masked")
        nearest = max(
            differing,
            key=lambda trace: sum(total_similarity(trace.steps, other.steps, step_similarity) for other in failures),
        )
        return show_attempt(nearest)


def show_attempt(success: Trace) -> str:
    """A success step by step, as a text for a teacher."""
    return f"An attempt that succeeded :\n{_render_without_outcome(success)}"


def _render_without_outcome(trace: Trace) -> str:
    return render_trace(trace).partition("\n")[2].rstrip()
