"""The built-in writer: five parts, from all siblings, out of what was visible."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from helpers.group import DONE, LAB, SORRY, call, pair, rollout, run, siblings
from sgcd.contrast.insert import encode_reference
from sgcd.contrast.leakage.literals import find_literals
from sgcd.contrast.trace import Trace, TraceCall, TraceTurn, build_trace, trace_from_tools
from sgcd.contrast.writers.moves import MovesWriter, compose_moves
from sgcd.lab.demonstrate import NOISY, Script, play_script
from sgcd.lab.tasks import generate_tasks
from sgcd.records import Group, Verdict

HUMAN = "a human will help you thank you"


def good(*tools: str, said: str = DONE) -> Trace:
    return trace_from_tools(True, tools, said)


def bad(*tools: str, said: str = SORRY) -> Trace:
    return trace_from_tools(False, tools, said)


@pytest.mark.parametrize(
    ("one", "other", "lines"),
    [
        (
            good("find_user", "get_booking", "cancel_booking"),
            bad("find_user", "cancel_booking"),
            [
                "what successful attempts check : find_user , get_booking .",
                "then they do : cancel_booking , say it is done thank you .",
                "where failed attempts go wrong : cancel_booking , say sorry this is not allowed .",
                "after find_user they leave : cancel_booking instead of get_booking .",
                "keep masked : hidden .",
            ],
        ),
        (
            good("find_user", "get_booking", said=SORRY),
            bad("find_user", "get_booking", "cancel_booking", said=DONE),
            [
                "what successful attempts check : find_user .",
                "then they do : get_booking , say sorry this is not allowed .",
                "where failed attempts go wrong : cancel_booking , say it is done thank you .",
                "after get_booking they leave : cancel_booking instead of say sorry this is not allowed .",
                "keep masked : hidden .",
            ],
        ),
        (
            good("find_user", "transfer_to_human", said=HUMAN),
            bad("find_user"),
            [
                "what successful attempts check : find_user .",
                "then they do : transfer_to_human , say a human will help you .",
                "where failed attempts go wrong : find_user , say sorry this is not allowed .",
                "after find_user they leave : say sorry this is not allowed instead of transfer_to_human .",
                "keep masked : hidden .",
            ],
        ),
        (
            good("find_user", "add_bags"),
            bad("find_user", "add_bags", said=DONE),
            [
                "what successful attempts check : find_user .",
                "then they do : add_bags , say it is done thank you .",
                "where failed attempts go wrong : add_bags , say it is done thank you .",
                "after say it is done thank you they leave : nothing instead of nothing .",
                "keep masked : hidden .",
            ],
        ),
        (
            trace_from_tools(True, (), ""),
            trace_from_tools(False, ("find_user",), ""),
            [
                "what successful attempts check : none .",
                "then they do : say nothing .",
                "where failed attempts go wrong : find_user , say nothing .",
                "after nothing they leave : find_user instead of say nothing .",
                "keep masked : hidden .",
            ],
        ),
    ],
)
def test_a_pair_in_the_words_that_the_labs_policies_have_learnt(one: Trace, other: Trace, lines: list[str]) -> None:
    assert compose_moves([other, one]).splitlines() == lines == compose_moves([one, other]).splitlines()


def test_of_many_siblings_what_most_did_comes_first_and_accidents_are_left_out() -> None:
    checked, lucky = good("find_user", "get_booking", "cancel_booking"), good("cancel_booking")
    skipped, refused, idle = bad("find_user", "cancel_booking", said=DONE), bad("find_user", "get_booking"), bad()
    traces = [lucky, idle, checked, refused, skipped, checked, refused, skipped, skipped]
    assert compose_moves(traces).splitlines() == [
        "what successful attempts check : find_user , get_booking .",
        "then they do : cancel_booking , say it is done thank you .",
        "where failed attempts go wrong : cancel_booking , say it is done thank you , get_booking , say sorry this is "
        "not allowed .",
        "after find_user they leave : cancel_booking instead of get_booking , after get_booking they leave : say sorry "
        "this is not allowed instead of cancel_booking .",
        "keep masked : hidden .",
    ]


def test_where_no_branch_is_more_frequent_the_middle_success_tells_it() -> None:
    ways = [good(), good("find_user", "get_booking", "add_bags"), good("find_user", "get_booking", "change_day")]
    assert "then they do : add_bags , say it is done thank you ." in compose_moves([*ways, bad()])


def test_failures_are_held_against_the_success_that_is_nearest() -> None:
    """Asking for the flight is no mistake where a success did it too: the last words are."""
    ways = [good("find_user", "get_booking", said="yes"), good("find_user", "get_flight", "get_booking", said="yes")]
    assert "after get_booking they leave : say no instead of say yes ." in compose_moves(
        [*ways, bad("find_user", "get_flight", "get_booking", said="no")]
    )


def test_several_ways_to_leave_at_one_point_stand_side_by_side() -> None:
    ways = [bad("find_user", "add_bags"), bad("find_user", said=HUMAN)]
    assert (
        "after find_user they leave : add_bags , say a human will help you instead of get_booking ."
        in compose_moves([good("find_user", "get_booking"), *ways, *ways])
    )


def test_a_check_counts_where_half_of_the_successes_made_it() -> None:
    full, none = good("find_user", "get_booking", "cancel_booking"), good("cancel_booking")
    other = good("find_user", "cancel_booking")
    assert compose_moves([full, other, bad()]).startswith("what successful attempts check : find_user .")
    assert compose_moves([full, full, none, none, bad()]).startswith("what successful attempts check : none .")
    assert compose_moves([full, full, full, none, bad()]).startswith(
        "what successful attempts check : find_user , get_booking ."
    )


def test_what_tools_complained_of_is_told_where_failures_had_more_of_it() -> None:
    def complained(success: bool, tool: str) -> Trace:
        call = TraceCall(tool, "booking=hidden", "no such booking")
        return Trace(success, (TraceTurn(calls=(call,)), TraceTurn("yes" if success else "no")))

    line = "where failed attempts go wrong : say no , get_flight error no such booking ."
    assert line in compose_moves([good(said="yes"), complained(False, "get_flight")])
    assert "error" not in compose_moves([complained(True, "get_flight"), complained(False, "get_flight")])


def test_every_word_of_a_lab_reference_is_known_in_the_lab() -> None:
    unknown = LAB.tokenizer.unk_token_id
    rng = np.random.Generator(np.random.Philox(key=3))
    texts: list[str] = []
    for task in generate_tasks("train")[:40]:
        played = [asyncio.run(play_script(task, Script(task, NOISY, rng))) for _ in range(8)]
        if len({one.verdict.success for one in played}) == 2:
            texts.append(compose_moves([one.trace for one in played]))
    assert len(texts) > 20
    for text in texts:
        assert unknown not in encode_reference(LAB, text), text
        assert len(text.splitlines()) == 5


def test_other_gold_same_text() -> None:
    """Property 28. The verifier's facts, the reward and the task's row are nowhere in what the writer is given."""

    def told(group: Group) -> str:
        literals = find_literals(group, LAB)
        return run(MovesWriter().write([build_trace(one, literals, LAB) for one in group.rollouts]))

    first = pair()
    verdicts = [Verdict(0.7, True, {"gold": "get_flight", "told": True}), Verdict(-3.0, False, {"gold": "yes"})]
    rollouts = tuple(replace(one, verdict=verdict) for one, verdict in zip(first.rollouts, verdicts, strict=True))
    other = Group(replace(first.task, row={"gold": "send_voucher", "rows": [1]}), rollouts)
    assert told(other) == told(first)


def test_private_values_are_in_no_part_of_the_text() -> None:
    said = ["your booking is b12 thank you", "your booking is b13 thank you"]
    group = siblings(
        *(
            rollout([call("find_user", "name", "mia"), text], ["user mia"], text == said[0], private=("mia",))
            for text in said
        )
    )
    literals = find_literals(group, LAB)
    text = compose_moves([build_trace(one, literals, LAB) for one in group.rollouts])
    assert "say your booking is hidden thank" in text
    assert not literals.find(text)
