"""Playing on from inside a recorded rollout: what was said is said again, and the world comes to the same state."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from sgcd.act.environment import Sampled
from sgcd.act.rollout import play
from sgcd.lab import policy
from sgcd.lab.branch import Branch, Remembered, State
from sgcd.lab.demonstrate import CAREFUL, NOISY, Script, enact, tokens
from sgcd.lab.guided import LIMITS
from sgcd.lab.tasks import tasks_of
from sgcd.lab.world import Airline
from sgcd.records import Ids, Rollout, Task

CHAT = policy.chat()


class Tail:
    """Says what is left of the turn that it is asked in, and of those after it; remembers what it was fed."""

    def __init__(self, rollout: Rollout, keep: int) -> None:
        self.rollout, self.keep, self.fed = rollout, keep, list[Ids]()

    async def sample(self, new: Ids, limit: int) -> Sampled:
        self.fed.append(new)
        turn = next(turn for turn in self.rollout.turns if turn.stop > self.keep)
        said = self.rollout.response[max(turn.start, self.keep) : turn.stop]
        self.keep = turn.stop
        return Sampled(said, np.zeros(len(said), np.float32), stopped=True)

    def close(self) -> None:
        pass


def played(task: Task, seed: int = 0) -> Rollout:
    care = NOISY if seed % 2 else CAREFUL
    return tokens(asyncio.run(enact(task, Script(task, care, np.random.default_rng(seed)))), CHAT)


def again(task: Task, rollout: Rollout, keep: int) -> tuple[Rollout, list[Ids]]:
    tail = Tail(rollout, keep)
    branch = Branch(tail, rollout, keep)
    return asyncio.run(play(task, Airline(), Remembered(CHAT), branch, LIMITS, 0, 0)), tail.fed


@pytest.mark.parametrize("number", range(8))
def test_a_rollout_that_is_said_again_ends_as_it_did(number: int):
    task = tasks_of("dev", horizon=1 + number // 4)[number]
    rollout = played(task, number)
    whole, fed = again(task, rollout, len(rollout.response))
    assert fed == []
    assert whole.response.tolist() == rollout.response.tolist()
    assert whole.verdict == rollout.verdict
    assert whole.calls == rollout.calls


def test_verdicts_of_both_kinds_were_said_again():
    assert {played(tasks_of("dev", 1 + n // 4)[n], n).success for n in range(8)} == {True, False}


def test_from_any_token_on_the_session_within_is_fed_all_that_stands_before_it():
    task = tasks_of("dev")[0]
    rollout = played(task)
    assert len(rollout.turns) > 1
    for keep in np.flatnonzero(rollout.mask).tolist():
        finished, fed = again(task, rollout, keep)
        assert fed[0].tolist() == [*rollout.prompt, *rollout.response[:keep]]
        assert finished.response.tolist() == rollout.response.tolist()
        assert finished.verdict == rollout.verdict


def test_after_the_last_token_of_a_turn_the_world_has_answered():
    task = tasks_of("dev")[0]
    rollout = played(task)
    finished, fed = again(task, rollout, rollout.turns[0].stop)
    assert fed[0].tolist() == [*rollout.prompt, *rollout.response[: rollout.turns[1].start]]
    assert finished.verdict == rollout.verdict


def test_a_turn_that_was_cut_off_stays_cut_off():
    task = tasks_of("dev")[0]
    rollout = played(task)
    turn = replace(rollout.turns[0], stop=4, calls=())
    cut = replace(
        rollout, response=rollout.response[:4], mask=rollout.mask[:4], kinds=rollout.kinds[:4],
        sampled_logp=rollout.sampled_logp[:4], turns=(turn,), ending="token_limit",
        messages=(*rollout.messages[:2], CHAT.said_message(rollout.response[:4], False)),
    )  # fmt: skip
    whole, fed = again(task, cut, 4)
    assert (whole.ending, whole.success, fed) == ("token_limit", False, [])


def test_another_world_is_not_taken_for_the_recorded_one():
    first, second = tasks_of("dev")[:2]
    rollout = played(first)
    with pytest.raises(RuntimeError, match="turn 0 does not begin as it did"):
        again(second, rollout, len(rollout.response))
    other = rollout.response.copy()
    other[rollout.turns[0].stop + 1] += 1  # what the world answered
    with pytest.raises(RuntimeError, match="turn 1 does not begin as it did"):
        again(first, replace(rollout, response=other), len(other))


def test_siblings_that_said_the_same_share_a_state_and_what_the_world_said_adds_nothing():
    task = tasks_of("dev")[0]
    rollout, turn = played(task), played(task).turns[1]
    other = replace(rollout, sibling=1, response=rollout.response.copy())
    other.response[turn.start + 1] += 1
    assert State(task, rollout, turn.start + 1).key == State(task, other, turn.start + 1).key
    assert State(task, rollout, turn.start + 2).key != State(task, other, turn.start + 2).key
    assert State(task, rollout, turn.start).key == State(task, rollout, rollout.turns[0].stop).key
    assert State(task, rollout, 0).key == (task.id, b"")
    assert not State(task, rollout, rollout.turns[-1].stop - 1).over
    assert State(task, rollout, rollout.turns[-1].stop).over


def test_a_chat_that_remembers_says_what_the_chat_says():
    remembered = Remembered(CHAT)
    task = tasks_of("dev")[0]
    opening = asyncio.run(Airline().open(task, 0))
    for _ in range(2):
        for harness in (0, 1):
            mine, its = (c.open(opening.messages, opening.tools, harness) for c in (remembered, CHAT))
            assert (mine.ids.tolist(), mine.insert_at, mine.messages) == (its.ids.tolist(), its.insert_at, its.messages)
        for opens in (True, False):
            mine, its = (c.extend(({"role": "tool", "content": "done"},), opens) for c in (remembered, CHAT))
            assert (mine[0].tolist(), mine[1]) == (its[0].tolist(), its[1])
