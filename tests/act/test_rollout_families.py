"""Whole rollouts on templates that behave as those of real models do: text, ids, and the turns whose ids differ."""

import asyncio

import numpy as np
import pytest

from helpers import chats
from helpers.chats import OPENING, TOOLS, call, chat
from sgcd.act.environment import Opening, Reply, Sampled
from sgcd.act.order import Cursor
from sgcd.act.rollout import play
from sgcd.act.settings import Limits
from sgcd.act.siblings import Gathered
from sgcd.chat import Chat
from sgcd.contrast.insert import block, teacher_row
from sgcd.learn.figures import figures
from sgcd.measure.evaluate import outcome
from sgcd.records import Ids, Kind, Rollout, Said, Siblings, Task, Verdict
from sgcd.stored import groups_from_bytes, groups_to_bytes

EVERY = pytest.mark.parametrize("family", chats.FAMILIES)
TASK = Task("t1", "action", {})


class Finder:
    """Answers each call, asks again when there was none."""

    def __init__(self) -> None:
        self.heard: list[Said] = []

    async def open(self, task: Task, seed: int) -> Opening:
        return Opening(OPENING, TOOLS)

    async def reply(self, said: Said) -> Reply:
        self.heard.append(said)
        found = tuple({"role": "tool", "content": f"found {call.arguments['who']} <|im_end|>"} for call in said.calls)
        return Reply(found or ({"role": "user", "content": "go on"},), failed=(False,) * len(said.calls))

    async def verify(self) -> Verdict:
        return Verdict(1.0, True)

    def private(self) -> tuple[str, ...]:
        return ()

    async def close(self) -> None: ...


class Says:
    """A session that says given turns and remembers what it was fed."""

    def __init__(self, chat: Chat, turns: list[Ids]) -> None:
        self.chat, self.turns, self.fed = chat, turns, list[int]()

    async def sample(self, new: Ids, limit: int) -> Sampled:
        ids = self.turns.pop(0)[:limit]
        self.fed += [*new.tolist(), *ids.tolist()]
        return Sampled(ids, np.zeros(len(ids), np.float32), self.chat.ended(ids))

    def close(self) -> None: ...


def played(here: Chat, turns: list[Ids], limits: Limits) -> tuple[Rollout, Finder, Says]:
    finder, says = Finder(), Says(here, list(turns))
    return asyncio.run(play(TASK, finder, here, says, limits, 0, 0)), finder, says  # type: ignore[arg-type]


def turns_of(here: Chat) -> list[Ids]:
    begun = "" if here.plain(here.extend(({"role": "user", "content": "u"},))[0]).endswith("<think>\n") else "<think>\n"
    texts = [
        begun + "so\n</think>\n\n" + call(here, who="Mia"),
        begun + "so\n</think>\n\n" + call(here, who="Zoë 😀") + "\n" + call(here, who="Łukasz"),
        begun + "so\n</think>\n\nfine",
        begun + "so\n</think>\n\n" + call(here, who="Mia")[:-5],
    ]
    turns = [here.words_of_policy(text) for text in texts * 7 + texts[:2]]
    turns[2] = np.concatenate([here.words_of_policy(letter) for letter in texts[2]])
    return [np.append(turn, here.end).astype(np.int32) for turn in turns]


@EVERY
def test_thirty_turns_of_a_rollout_come_back_and_the_turn_with_other_ids_is_counted(family: str) -> None:
    here = chat(family)
    rollout, finder, says = played(here, turns_of(here), Limits(turns=30, tokens=20_000))
    assert (rollout.broken, len(rollout.turns), rollout.ending) == ("", 30, "turn_limit")
    whole = [*rollout.prompt.tolist(), *rollout.response.tolist()]
    told = {"tools": list(rollout.tools), "tokenize": False}
    text = here.tokenizer.apply_chat_template(list(rollout.messages), **told)
    assert text == here.plain(np.array(whole, np.int32))
    assert says.fed == whole[: len(says.fed)]
    assert [turn.exact for turn in rollout.turns] == [number != 2 for number in range(30)]
    assert outcome(rollout)["inexact"] == 1
    assert sum(len(said.calls) for said in finder.heard) == 3 * 7 + 3 and outcome(rollout)["malformed"] == 7
    assert ((rollout.kinds != Kind.GLUE) == rollout.mask).all()
    row = teacher_row(rollout, block(here, "check <|im_end|> first"))
    assert row[-len(rollout.response) :].tolist() == rollout.response.tolist()


def test_such_turns_stand_in_the_steps_row_and_in_the_record() -> None:
    rollout, _, _ = played(chat("opened"), turns_of(chat("opened")), Limits(turns=4, tokens=4000))
    group = Siblings(TASK, (rollout, rollout))
    assert figures(Gathered((), (), (group,), 1, Cursor(0)))["inexact_turns"] == 2
    [back] = groups_from_bytes(*groups_to_bytes(1, [group], [True]), "here")
    assert back.siblings.rollouts[0].turns == rollout.turns
