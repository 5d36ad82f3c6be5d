"""With the lab's chat and world: whatever the policy samples, the messages render to the very ids of the rollout."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.act.environment import Sampled
from sgcd.act.rollout import play
from sgcd.act.settings import Limits
from sgcd.records import Ids

pytest.importorskip("transformers")
from sgcd.lab.policy import chat
from sgcd.lab.settings import LabEnvironment
from sgcd.lab.world import lab_stage

CHAT = chat()
STAGE = lab_stage(LabEnvironment(name="lab"))
CALLS = ["<call> get_booking booking b12 </call>", "<call> find_user name mia </call>", "<call> get_bookng </call>"]


class Sampling:
    """Says given ids, turn by turn."""

    def __init__(self, turns: Iterator[Ids]) -> None:
        self.turns = turns
        self.fed: list[int] = []

    async def sample(self, new: Ids, limit: int) -> Sampled:
        ids = next(self.turns)[:limit]
        self.fed += [*new.tolist(), *ids.tolist()]
        return Sampled(ids, np.zeros(len(ids), np.float32), bool(len(ids) and ids[-1] == CHAT.end))

    def close(self) -> None: ...


ANY = st.lists(st.integers(0, CHAT.size - 1).filter(lambda number: number != CHAT.end), max_size=12)
CALL = st.sampled_from([CHAT.tokenizer(call, add_special_tokens=False)["input_ids"] for call in CALLS])
TURNS = st.lists(
    st.one_of(ANY, CALL, st.tuples(ANY, CALL).map(lambda parts: parts[0] + parts[1])), min_size=8, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(TURNS, st.integers(0, 50), st.integers(1, 200))
def test_messages_render_to_the_ids(turns: list[list[int]], number: int, tokens: int):
    session = Sampling(iter([np.array([*turn, CHAT.end], np.int32) for turn in turns]))
    task = STAGE.splits["train"][number]
    rollout = asyncio.run(play(task, STAGE.environment(), CHAT, session, Limits(turns=8, tokens=tokens), 0, 0))
    assert not rollout.broken
    whole = [*rollout.prompt.tolist(), *rollout.response.tolist()]
    assert CHAT.render(rollout.messages, rollout.tools).tolist() == whole
    assert session.fed == whole[: len(session.fed)]
    assert ((rollout.kinds > 0) == rollout.mask).all()
