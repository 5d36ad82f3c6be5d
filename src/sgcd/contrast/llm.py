"""The writer that is a language model: asked at an endpoint, its answer parsed, checked and said in five parts."""

from collections.abc import Sequence

from sgcd.contrast.answer import LONGEST, MOST, SCHEMA, rendered
from sgcd.contrast.prompt import messages
from sgcd.contrast.trace import Trace
from sgcd.contrast.write import Unwritten
from sgcd.endpoint.account import Unanswered
from sgcd.endpoint.ask import Endpoint


class LanguageModel:
    """Reads what it is given and nothing else; traces are cleaned before they come here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.name = endpoint.settings.model

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        try:
            answer = await self.endpoint.ask(messages(traces, refused, MOST, LONGEST), SCHEMA)
        except Unanswered as nothing:
            if nothing.kind == "huge":
                raise Unwritten("malformed huge: the answer was far too long", again=True) from None
            raise Unwritten(f"unanswered {nothing.kind}: {nothing.detail}") from None
        try:
            return rendered(answer.text)
        except Unwritten:
            if not answer.whole:
                raise Unwritten("malformed length: the answer was cut before its end; be brief", again=True) from None
            raise
