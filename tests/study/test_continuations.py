"""Playing on from inside a recorded rollout: what was said is said again, and the world comes to the same state."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from sgcd.act.environment import SampledTurn
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.lab import policy
from sgcd.lab.demonstrate import CAREFUL, NOISY, Script, encode_demonstration, play_script
from sgcd.lab.reference_effect import LAB_LIMITS
from sgcd.lab.tasks import generate_tasks
from sgcd.lab.world import Airline
from sgcd.records import Rollout, Task, TokenIds
from sgcd.study.continuations import BranchPoint, CachedChat, ReplaySession

CHAT = policy.build_lab_chat()


class Tail:
    """Says what is left of the turn that it is asked in, and of those after it; remembers what it was fed."""

    def __init__(self, rollout: Rollout, keep: int) -> None:
        self.rollout, self.keep, self.fed = rollout, keep, list[TokenIds]()

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        self.fed.append(new_ids)
        turn = next(turn for turn in self.rollout.turns if turn.stop > self.keep)
        said = self.rollout.response[max(turn.start, self.keep) : turn.stop]
        self.keep = turn.stop
        return SampledTurn(said, np.zeros(len(said), np.float32), hit_end_token=True)

    def close(self) -> None:
        pass


def played(task: Task, seed: int = 0) -> Rollout:
    care = NOISY if seed % 2 else CAREFUL
    return encode_demonstration(asyncio.run(play_script(task, Script(task, care, np.random.default_rng(seed)))), CHAT)


def again(task: Task, rollout: Rollout, keep: int) -> tuple[Rollout, list[TokenIds]]:
    tail = Tail(rollout, keep)
    branch = ReplaySession(tail, rollout, keep)
    played = play_rollout(RolloutRecorder(task, 0, 0), Airline(), branch, chat=CachedChat(CHAT), limits=LAB_LIMITS)
    return asyncio.run(played), tail.fed


@pytest.mark.parametrize("number", range(8))
def test_a_rollout_that_is_said_again_ends_as_it_did(number: int):
    task = generate_tasks("dev", horizon=1 + number // 4)[number]
    rollout = played(task, number)
    whole, fed = again(task, rollout, len(rollout.response))
    assert fed == []
    assert whole.response.tolist() == rollout.response.tolist()
    assert whole.verdict == rollout.verdict
    assert whole.calls == rollout.calls


def test_verdicts_of_both_kinds_were_said_again():
    assert {played(generate_tasks("dev", 1 + n // 4)[n], n).success for n in range(8)} == {True, False}


def test_from_any_token_on_the_session_within_is_fed_all_that_stands_before_it():
    task = generate_tasks("dev")[0]
    rollout = played(task)
    assert len(rollout.turns) > 1
    for keep in np.flatnonzero(rollout.response_mask).tolist():
        finished, fed = again(task, rollout, keep)
        assert fed[0].tolist() == [*rollout.prompt, *rollout.response[:keep]]
        assert finished.response.tolist() == rollout.response.tolist()
        assert finished.verdict == rollout.verdict


def test_after_the_last_token_of_a_turn_the_world_has_answered():
    task = generate_tasks("dev")[0]
    rollout = played(task)
    finished, fed = again(task, rollout, rollout.turns[0].stop)
    assert fed[0].tolist() == [*rollout.prompt, *rollout.response[: rollout.turns[1].start]]
    assert finished.verdict == rollout.verdict


def test_a_turn_that_was_cut_off_stays_cut_off():
    task = generate_tasks("dev")[0]
    rollout = played(task)
    turn = replace(rollout.turns[0], stop=4, calls=())
    cut = replace(
        rollout, response=rollout.response[:4], response_mask=rollout.response_mask[:4],
        token_kinds=rollout.token_kinds[:4],
        sampling_logprobs=rollout.sampling_logprobs[:4], turns=(turn,), end_reason="token_limit",
        messages=(*rollout.messages[:2], CHAT.turn_message(rollout.response[:4], False)),
    )  # fmt: skip
    whole, fed = again(task, cut, 4)
    assert (whole.end_reason, whole.success, fed) == ("token_limit", False, [])


def test_another_world_is_not_taken_for_the_recorded_one():
    first, second = generate_tasks("dev")[:2]
    rollout = played(first)
    with pytest.raises(RuntimeError, match="turn 0 does not begin as it did"):
        again(second, rollout, len(rollout.response))
    other = rollout.response.copy()
    other[rollout.turns[0].stop + 1] += 1  # what the world answered
    with pytest.raises(RuntimeError, match="turn 1 does not begin as it did"):
        again(first, replace(rollout, response=other), len(other))


def test_siblings_that_said_the_same_share_a_state_and_what_the_world_said_adds_nothing():
    task = generate_tasks("dev")[0]
    rollout, turn = played(task), played(task).turns[1]
    other = replace(rollout, sibling=1, response=rollout.response.copy())
    other.response[turn.start + 1] += 1
    assert BranchPoint(task, rollout, turn.start + 1).key == BranchPoint(task, other, turn.start + 1).key
    assert BranchPoint(task, rollout, turn.start + 2).key != BranchPoint(task, other, turn.start + 2).key
    assert BranchPoint(task, rollout, turn.start).key == BranchPoint(task, rollout, rollout.turns[0].stop).key
    assert BranchPoint(task, rollout, 0).key == (task.id, b"")
    assert not BranchPoint(task, rollout, rollout.turns[-1].stop - 1).is_over
    assert BranchPoint(task, rollout, rollout.turns[-1].stop).is_over


def test_a_chat_that_remembers_says_what_the_chat_says():
    remembered = CachedChat(CHAT)
    task = generate_tasks("dev")[0]
    opening = asyncio.run(Airline().open(task, 0))
    for _ in range(2):
        for messages in (opening.messages, opening.messages[1:]):
            mine, its = (c.encode_prompt(messages, opening.tools) for c in (remembered, CHAT))
            assert (mine.token_ids.tolist(), mine.reference_position, mine.messages) == (
                its.token_ids.tolist(),
                its.reference_position,
                its.messages,
            )
        for opens in (True, False):
            mine, its = (c.encode_reply(({"role": "tool", "content": "done"},), opens) for c in (remembered, CHAT))
            assert (mine[0].tolist(), mine[1]) == (its[0].tolist(), its[1])
