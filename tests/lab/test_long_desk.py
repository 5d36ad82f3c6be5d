"""The long desk: its rule, its tasks, its verdicts, and demonstrations that are what a policy would have sampled."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from sgcd.act.environment import SampledTurn, Session
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.credit.methods.pull.by_turn import part_indices, part_rewards
from sgcd.lab.long_desk import demonstrate
from sgcd.lab.long_desk.world import (
    DECISIONS,
    FACTS,
    ITEMS,
    REFUSE,
    DeskRequest,
    LongDesk,
    allows,
    build_long_desk_task_suite,
    desk_requests,
    generate_desk_tasks,
    rule_table,
)
from sgcd.lab.settings import LongDeskSettings
from sgcd.records import Call, ParsedTurn, Rollout, Task, TokenIds, TokenKind

WORLD = LongDeskSettings(name="long_desk", thinking=16)
READ = LongDeskSettings(name="long_desk", thinking=32, read=True)


def judge(settings: LongDeskSettings, turns: list[ParsedTurn], task: Task) -> tuple[bool, list[float]]:
    async def run() -> tuple[bool, list[float]]:
        desk = LongDesk(settings)
        await desk.open(task, 0)
        replies = [await desk.reply(turn) for turn in turns]
        assert [reply.done for reply in replies] == [False] * (len(turns) - 1) + [len(turns) == settings.requests]
        verdict = await desk.verify()
        return verdict.success, [part["reward"] for part in verdict.facts["parts"]]

    return asyncio.run(run())


def right_turns(settings: LongDeskSettings, task: Task) -> list[ParsedTurn]:
    rng = np.random.default_rng(0)
    turns: list[ParsedTurn] = []
    for request in desk_requests(task):
        thinking = demonstrate.draw_thinking(settings.thinking, rng)
        word = {"word": thinking[thinking.index(request.number) + 1]} if request.number else {}
        call = Call(request.right_tool, {"item": request.item, **word})
        turns.append(ParsedTurn(" ".join(thinking), "", (call,)))
    return turns


def test_acting_always_and_refusing_always_fail_every_task() -> None:
    assert rule_table().sum(axis=1).tolist() == [len(FACTS) // 2] * len(ITEMS)
    for split in ("train", "dev", "test"):
        for task in generate_desk_tasks(split, WORLD)[:200]:
            assert {allows(request) for request in desk_requests(task)} == {True, False}


def test_no_conversation_is_in_two_splits() -> None:
    rows = [str(task.row) for split in ("train", "dev", "test") for task in generate_desk_tasks(split, WORLD)]
    assert len({*rows}) == len(rows)


@pytest.mark.parametrize("settings", [WORLD, READ])
def test_all_requests_must_be_right_and_each_has_its_own_verdict(settings: LongDeskSettings) -> None:
    task = generate_desk_tasks("dev", settings)[3]
    turns = right_turns(settings, task)
    assert judge(settings, turns, task) == (True, [1, 1, 1, 1])
    other_tool = next(tool for tool in DECISIONS if tool != turns[1].calls[0].name)
    wrong_tool = replace(turns[1], calls=(replace(turns[1].calls[0], name=other_tool),))
    no_call = replace(turns[2], calls=())
    words = turns[3].thinking.split()
    less_thinking = replace(turns[3], thinking=" ".join(words[: len(words) // 2]))
    more_thinking = replace(turns[3], thinking=" ".join([*words, *words[: len(words) // 2]]))
    foreign_thinking = replace(turns[3], thinking=turns[3].thinking.replace("_trip", ""))
    other_form = replace(turns[3], thinking=" ".join([*words, "n9", *words[-2:]]))
    assert judge(settings, [turns[0], wrong_tool, *turns[2:]], task) == (False, [1, 0, 1, 1])
    assert judge(settings, [*turns[:2], no_call, turns[3]], task) == (False, [1, 1, 0, 1])
    assert judge(settings, [*turns[:3], less_thinking], task) == (False, [1, 1, 1, 0])
    assert judge(settings, [*turns[:3], more_thinking], task) == (False, [1, 1, 1, 0])
    assert judge(settings, [*turns[:3], other_form], task) == (True, [1, 1, 1, 1])
    assert judge(settings, [*turns[:3], foreign_thinking], task) == (False, [1, 1, 1, 0])
    assert judge(settings, turns[:2], task) == (False, [1, 1])


def test_a_call_must_repeat_the_word_behind_the_number() -> None:
    task = generate_desk_tasks("dev", READ)[0]
    turns = right_turns(READ, task)
    call = turns[0].calls[0]
    other = next(word for word in DECISIONS if word != call.arguments["word"])
    misread = replace(turns[0], calls=(replace(call, arguments={**call.arguments, "word": other}),))
    assert judge(READ, [misread, *turns[1:]], task) == (False, [0, 1, 1, 1])


class ReplaySession(Session):
    """Samples the given turns, and keeps what it was sent in between."""

    def __init__(self, turns: list[TokenIds]) -> None:
        self.turns, self.sent = turns, list[TokenIds]()

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        self.sent.append(new_ids)
        ids = self.turns[len(self.sent) - 1]
        return SampledTurn(ids, np.zeros(len(ids), np.float32), True)

    def close(self) -> None: ...


@pytest.mark.parametrize("settings", [WORLD, READ])
def test_a_demonstration_is_token_for_token_what_is_played(settings: LongDeskSettings) -> None:
    chat = demonstrate.build_desk_chat()
    vocabulary = chat.tokenizer.get_vocab()
    task, rng = generate_desk_tasks("train", settings)[0], np.random.default_rng(1)
    requests = desk_requests(task)
    turns = [
        demonstrate.write_desk_turn(request, request.right_tool, demonstrate.draw_thinking(settings.thinking, rng))
        for request in requests
    ]
    written = demonstrate.write_demonstration(requests, turns, settings.read)
    session = ReplaySession([np.array([vocabulary[word] for word, _ in turn], np.int32) for turn in turns])
    environment = build_long_desk_task_suite(settings).environment_factory()
    limits = Limits(turns=4, tokens=len(written))
    rollout: Rollout = asyncio.run(
        play_rollout(RolloutRecorder(task, 0, 0), environment, session, chat=chat, limits=limits)
    )
    ids = np.concatenate([rollout.prompt, rollout.response])
    assert ids.tolist() == [vocabulary[word] for word, _ in written]
    assert rollout.success and rollout.end_reason == "ended" and all(turn.roundtrips for turn in rollout.turns)
    assert part_rewards([rollout]).tolist() == [[1, 1, 1, 1]]
    decisions = [place for place, (_, kind) in enumerate(written) if kind == demonstrate.DECISION_TOKEN]
    places = np.array(decisions) - len(rollout.prompt)
    assert part_indices(rollout)[places].tolist() == [0, 1, 2, 3]
    assert (rollout.token_kinds[places] == TokenKind.CALL).all()
    assert "<unk>" not in chat.decode(ids)


def test_as_many_allowed_cells_as_forbidden_ones_are_wrong_in_demonstrations() -> None:
    for seed in (1, 2, 3):
        wrong = demonstrate.error_rates(seed) > 0.5
        assert wrong.mean() == pytest.approx(0.3, abs=0.02)
        assert (wrong & rule_table()).sum(axis=1).tolist() == (wrong & ~rule_table()).sum(axis=1).tolist()
    assert (demonstrate.error_rates(1) != demonstrate.error_rates(2)).any()
    request = DeskRequest("cancel", "flex", "storm")
    never, always = (np.full((len(ITEMS), len(FACTS)), rate) for rate in (0.0, 1.0))
    rng = np.random.default_rng(0)
    assert demonstrate.decide_with_errors(request, never, rng) == request.right_tool
    assert demonstrate.decide_with_errors(request, always, rng) in {"cancel_trip", REFUSE} - {request.right_tool}


@pytest.mark.parametrize("changes", [{"requests": 11}, {"thinking": 24}, {"thinking": 0, "read": True}])
def test_settings_out_of_range_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        LongDeskSettings.model_validate({"name": "long_desk", **changes})
