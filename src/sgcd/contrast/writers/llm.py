"""The writer that is a language model: asked at an endpoint, its answer parsed, checked and said in five parts."""

from collections.abc import Sequence

from sgcd.contrast.trace import Trace
from sgcd.contrast.writers.built_in import WriterFailed
from sgcd.contrast.writers.llm_answer import ANSWER_SCHEMA, MAX_TEXT_CHARS, MAX_TEXTS_PER_PART, render_answer
from sgcd.contrast.writers.llm_prompt import build_writer_messages
from sgcd.endpoint.client import Endpoint
from sgcd.endpoint.usage import RequestFailed


class LanguageModelWriter:
    """Reads what it is given and nothing else; traces are cleaned before they come here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.name = endpoint.settings.model

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        try:
            answer = await self.endpoint.complete(
                build_writer_messages(traces, refused, MAX_TEXTS_PER_PART, MAX_TEXT_CHARS), ANSWER_SCHEMA
            )
        except RequestFailed as failure:
            if failure.kind == "huge":
                raise WriterFailed("malformed huge: the answer was far too long", may_retry=True) from None
            raise WriterFailed(f"unanswered {failure.kind}: {failure.detail}") from None
        try:
            return render_answer(answer.text)
        except WriterFailed:
            if not answer.is_complete:
                raise WriterFailed(
                    "malformed length: the answer was cut before its end; be brief", may_retry=True
                ) from None
            raise
