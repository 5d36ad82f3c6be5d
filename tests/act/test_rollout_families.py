"""Whole rollouts on templates that behave as those of real models do: text, ids, and the turns whose ids differ."""

import asyncio

import numpy as np
import pytest

from helpers import chats
from helpers.chats import OPENING, TOOLS, call, chat
from sgcd.act.environment import InitialMessages, Reply, SampledTurn
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.act.siblings import CollectedGroups
from sgcd.act.task_order import TaskCursor
from sgcd.chat import Chat
from sgcd.contrast.insert import build_teacher_input_ids, encode_reference
from sgcd.learn.training.rollout_metrics import rollout_metrics
from sgcd.measure.evaluate import rollout_row
from sgcd.records import Group, ParsedTurn, Rollout, Task, TokenIds, TokenKind, Verdict
from sgcd.storage.record_files import groups_from_bytes, groups_to_bytes

EVERY = pytest.mark.parametrize("family", chats.FAMILIES)
TASK = Task("t1", "action", {})


class Finder:
    """Answers each call, asks again when there was none."""

    def __init__(self) -> None:
        self.heard: list[ParsedTurn] = []

    async def open(self, task: Task, seed: int) -> InitialMessages:
        return InitialMessages(OPENING, TOOLS)

    async def reply(self, turn: ParsedTurn) -> Reply:
        self.heard.append(turn)
        found = tuple({"role": "tool", "content": f"found {call.arguments['who']} <|im_end|>"} for call in turn.calls)
        return Reply(found or ({"role": "user", "content": "go on"},), call_errors=(False,) * len(turn.calls))

    async def verify(self) -> Verdict:
        return Verdict(1.0, True)

    def private(self) -> tuple[str, ...]:
        return ()

    async def close(self) -> None: ...


class Says:
    """A session that says given turns and remembers what it was fed."""

    def __init__(self, chat: Chat, turns: list[TokenIds]) -> None:
        self.chat, self.turns, self.fed = chat, turns, list[int]()

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        ids = self.turns.pop(0)[:max_new_tokens]
        self.fed += [*new_ids.tolist(), *ids.tolist()]
        return SampledTurn(ids, np.zeros(len(ids), np.float32), self.chat.has_end_token(ids))

    def close(self) -> None: ...


def played(here: Chat, turns: list[TokenIds], limits: Limits) -> tuple[Rollout, Finder, Says]:
    finder, says = Finder(), Says(here, list(turns))
    rollout = asyncio.run(play_rollout(RolloutRecorder(TASK, 0, 0), finder, says, chat=here, limits=limits))
    return rollout, finder, says


def turns_of(here: Chat) -> list[TokenIds]:
    begun = (
        ""
        if here.decode(here.encode_reply(({"role": "user", "content": "u"},))[0]).endswith("<think>\n")
        else "<think>\n"
    )
    texts = [
        begun + "so\n</think>\n\n" + call(here, who="Mia"),
        begun + "so\n</think>\n\n" + call(here, who="Zoë 😀") + "\n" + call(here, who="Łukasz"),
        begun + "so\n</think>\n\nfine",
        begun + "so\n</think>\n\n" + call(here, who="Mia")[:-5],
    ]
    turns = [here.encode_policy_text(text) for text in texts * 7 + texts[:2]]
    turns[2] = np.concatenate([here.encode_policy_text(letter) for letter in texts[2]])
    return [np.append(turn, here.end_id).astype(np.int32) for turn in turns]


@EVERY
def test_thirty_turns_of_a_rollout_come_back_and_the_turn_with_other_ids_is_counted(family: str) -> None:
    here = chat(family)
    rollout, finder, says = played(here, turns_of(here), Limits(turns=30, tokens=20_000))
    assert (rollout.broken, len(rollout.turns), rollout.end_reason) == ("", 30, "turn_limit")
    whole = [*rollout.prompt.tolist(), *rollout.response.tolist()]
    told = {"tools": list(rollout.tools), "tokenize": False}
    text = here.tokenizer.apply_chat_template(list(rollout.messages), **told)
    assert text == here.decode(np.array(whole, np.int32))
    assert says.fed == whole[: len(says.fed)]
    assert [turn.roundtrips for turn in rollout.turns] == [number != 2 for number in range(30)]
    assert rollout_row(rollout)["inexact"] == 1
    assert sum(len(said.calls) for said in finder.heard) == 3 * 7 + 3 and rollout_row(rollout)["malformed"] == 7
    assert ((rollout.token_kinds != TokenKind.GLUE) == rollout.response_mask).all()
    row = build_teacher_input_ids(rollout, encode_reference(here, "check <|im_end|> first"))
    assert row[-len(rollout.response) :].tolist() == rollout.response.tolist()


def test_such_turns_stand_in_the_steps_row_and_in_the_record() -> None:
    rollout, _, _ = played(chat("opened"), turns_of(chat("opened")), Limits(turns=4, tokens=4000))
    group = Group(TASK, (rollout, rollout))
    assert rollout_metrics(CollectedGroups((), (), (group,), 1, TaskCursor(0))).inexact_turns == 2
    [back] = groups_from_bytes(*groups_to_bytes(1, [group], [True]), "here")
    assert back.group.rollouts[0].turns == rollout.turns
