"""The truth of a policy whose chances are written down: a no-action task that is won by refusing.

It refuses at once with .25; else it looks the customer up, and then refuses with .6 or confirms.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from sgcd.act.environment import SampledTurn
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.lab import policy, words
from sgcd.lab.reference_effect import LAB_LIMITS
from sgcd.lab.tasks import generate_tasks
from sgcd.lab.world import Airline
from sgcd.records import Floats, Rollout, TokenIds
from sgcd.study import decision_values as truth
from sgcd.study.continuations import BranchPoint, play_continuations
from sgcd.study.decision_values import MeasuredRollout, Truth, estimate_advantage, measure_truths, undecided_positions

CHAT = policy.build_lab_chat()
TASK = next(task for task in generate_tasks("dev") if task.category == "no_action")
AT_ONCE, LATER = 0.25, 0.6
REFUSE, CONFIRM = words.REFUSAL.split()[0], words.CONFIRMATION.split()[0]


class Chances:
    """One rollout's place: it reads its turn so far off the ids that it was fed, and goes on with the chances above."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.heard = ""

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        self.heard += " " + CHAT.decode(new_ids)
        begun = self.heard.rpartition("<|assistant|>")[2].strip()
        text = self.turn(begun)
        ids = np.append(CHAT.encode_policy_text(text.removeprefix(begun)), np.int32(CHAT.end_id)).astype(np.int32)
        self.heard += text.removeprefix(begun) + " <|end|>"
        return SampledTurn(ids, np.zeros(len(ids), np.float32), hit_end_token=True)

    def turn(self, begun: str) -> str:
        call = f"{words.BEFORE_CALL} <call> find_user name {TASK.row['rows'][0]['name']} </call>"
        looked = "user" in self.heard.rpartition("<|tool|>")[2] if "<|tool|>" in self.heard else False
        options = (words.REFUSAL, words.CONFIRMATION) if looked else (words.REFUSAL, call)
        fitting = [option for option in options if option.startswith(begun)]
        if len(fitting) == 1:
            return fitting[0]
        return fitting[int(self.rng.random() >= (LATER if looked else AT_ONCE))]

    def close(self) -> None:
        pass


class Room:
    slots = 128

    def __init__(self) -> None:
        self.sessions = 0

    @asynccontextmanager
    async def cohort(self, size: int, temperature: float | None = None) -> AsyncIterator["Room"]:
        assert size <= self.slots
        yield self

    def session(self, index: int, seed: int) -> Chances:
        self.sessions += 1
        return Chances(seed)


def played(seed: int) -> Rollout:
    recorder = RolloutRecorder(TASK, seed, seed)
    return asyncio.run(play_rollout(recorder, Airline(), Chances(seed), chat=CHAT, limits=LAB_LIMITS))


def word(rollout: Rollout, place: int) -> str:
    return CHAT.decode(rollout.response[place : place + 1])


def tops(rollout: Rollout) -> Floats:
    """The largest probability at each token: below one only where a turn begins."""
    top = np.ones(len(rollout.response), np.float32)
    for number, turn in enumerate(rollout.turns):
        top[turn.start] = LATER if number else 1 - AT_ONCE
    return top


START = AT_ONCE + (1 - AT_ONCE) * LATER
EXPECTED = {(0, REFUSE): 1 - START, (0, "one"): LATER - START, (1, REFUSE): 1 - LATER, (1, CONFIRM): -LATER}


@pytest.fixture(scope="module")
def judged() -> tuple[list[Rollout], list[Truth], Room]:
    rollouts, room = [played(seed) for seed in range(12)], Room()
    found = asyncio.run(
        measure_truths(
            [MeasuredRollout(TASK, rollout, tops(rollout), rollout.response_mask) for rollout in rollouts],
            CHAT,
            room,
            seed=0,
            num_plays=truth.NUM_CONTINUATIONS,
        )
    )
    return rollouts, found, room


def test_the_advantage_of_every_decision_is_found(judged: tuple[list[Rollout], list[Truth], Room]):
    rollouts, found, _ = judged
    seen = set()
    for rollout, one in zip(rollouts, found, strict=True):
        for number, turn in enumerate(rollout.turns):
            key = number, word(rollout, turn.start)
            seen.add(key)
            assert abs(one.advantage[turn.start] - EXPECTED[key]) < 3.5 * one.standard_error[turn.start]
            assert one.standard_error[turn.start] < 0.09
            assert one.decisive_mask[turn.start] == (abs(EXPECTED[key]) > 0.2)
        assert one.measured_mask.sum() == len(rollout.turns)
        assert one.decisive_mask.sum() <= one.measured_mask.sum()
    assert seen == set(EXPECTED)


def test_a_value_is_found_once_however_many_siblings_share_it(judged: tuple[list[Rollout], list[Truth], Room]):
    _, found, room = judged
    # before the first word; after "one"; before the second turn; what follows a refusal or a confirmation is certain,
    # but it is a state of its own wherever words are still to come
    assert room.sessions == truth.NUM_CONTINUATIONS * len(
        {*"start one looked".split(), (0, REFUSE), (1, REFUSE), (1, CONFIRM)}
    )
    first = [one.advantage[0] for one in found]
    assert len(set(first)) == 2


def test_what_is_over_is_not_played_on():
    rollout = played(1)
    room = Room()
    won = asyncio.run(
        play_continuations([BranchPoint(TASK, rollout, len(rollout.response))], 64, chat=CHAT, sampler=room, seed=0)
    )
    assert (won, room.sessions) == ([64 * rollout.success], 0)


def test_literals_are_not_measured_and_are_neither_decisive_nor_not():
    rollout = played(0)
    counted = rollout.response_mask.copy()
    counted[rollout.turns[0].start] = False
    top = tops(rollout)
    assert rollout.turns[0].start in undecided_positions(top, rollout.response_mask)
    assert rollout.turns[0].start not in undecided_positions(top, counted)
    assert undecided_positions(np.array([0.97, 0.98, 0.99], np.float32), np.ones(3, bool)).tolist() == [0]


def test_the_standard_error_never_vanishes():
    after, before = np.array([0, 64, 64, 32]), np.array([0, 64, 0, 32])
    advantage, error = estimate_advantage(after, before, 64)
    assert advantage.tolist() == pytest.approx([0, 0, 64 / 66, 0])
    edge, middle = 1 / 66 * 65 / 66, 0.25
    assert error.tolist() == pytest.approx([(2 * p / 66) ** 0.5 for p in (edge, edge, edge, middle)])


def test_decisive_is_beyond_three_standard_errors_on_either_side():
    advantage = np.array([0.31, -0.31, 0.29, np.nan], np.float32)
    error = np.array([0.1, 0.1, 0.1, np.nan], np.float32)
    assert Truth(advantage, error, np.ones(4, bool)).decisive_mask.tolist() == [True, True, False, False]
