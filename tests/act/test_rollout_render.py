"""With the lab's chat and world: whatever the policy samples, the messages render to the very ids of the rollout."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.act.environment import SampledTurn
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.records import TokenIds

pytest.importorskip("transformers")
from sgcd.lab.policy import build_lab_chat
from sgcd.lab.settings import LabSettings
from sgcd.lab.tasks import build_lab_task_suite

CHAT = build_lab_chat()
STAGE = build_lab_task_suite(LabSettings(name="lab"))
CALLS = ["<call> get_booking booking b12 </call>", "<call> find_user name mia </call>", "<call> get_bookng </call>"]


class Sampling:
    """Says given ids, turn by turn."""

    def __init__(self, turns: Iterator[TokenIds]) -> None:
        self.turns = turns
        self.fed: list[int] = []

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        ids = next(self.turns)[:max_new_tokens]
        self.fed += [*new_ids.tolist(), *ids.tolist()]
        return SampledTurn(ids, np.zeros(len(ids), np.float32), bool(len(ids) and ids[-1] == CHAT.end_id))

    def close(self) -> None: ...


ANY = st.lists(st.integers(0, CHAT.vocab_size - 1).filter(lambda number: number != CHAT.end_id), max_size=12)
CALL = st.sampled_from([CHAT.tokenizer(call, add_special_tokens=False)["input_ids"] for call in CALLS])
TURNS = st.lists(
    st.one_of(ANY, CALL, st.tuples(ANY, CALL).map(lambda parts: parts[0] + parts[1])), min_size=8, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(TURNS, st.integers(0, 50), st.integers(1, 200))
def test_messages_render_to_the_ids(turns: list[list[int]], number: int, tokens: int):
    session = Sampling(iter([np.array([*turn, CHAT.end_id], np.int32) for turn in turns]))
    task = STAGE.splits["train"][number]
    rollout = asyncio.run(
        play_rollout(
            RolloutRecorder(task, 0, 0),
            STAGE.environment_factory(),
            session,
            chat=CHAT,
            limits=Limits(turns=8, tokens=tokens),
        )
    )
    assert not rollout.broken
    whole = [*rollout.prompt.tolist(), *rollout.response.tolist()]
    assert CHAT.encode_conversation(rollout.messages, rollout.tools).tolist() == whole
    assert session.fed == whole[: len(session.fed)]
    assert ((rollout.token_kinds > 0) == rollout.response_mask).all()
