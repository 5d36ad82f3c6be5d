"""From siblings to a reference, or the cause why there is none; a writer can do what it likes."""

import asyncio
import json
import random
import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.group import DONE, LAB, SORRY, TASK, Says, call, pair, rollout, run, siblings
from sgcd.contrast.insert import encode_reference
from sgcd.contrast.leakage.literals import find_literals, tokens_outside_literals
from sgcd.contrast.reference import (
    MAX_REPLACED_LITERALS,
    ReferenceBuilder,
    ReferenceResult,
    WriterAnswer,
    WriterInput,
    build_reference,
    finish_reference,
    prepare_reference,
    screen_for_leaks,
)
from sgcd.contrast.trace import render_trace
from sgcd.contrast.writers import Writer, WriterFailed
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.records import Group, Verdict

PLENTY = 10**6


def referred(writer: Writer, group: Group | None = None, budget: int = PLENTY) -> ReferenceResult:
    return run(build_reference(group or pair(), LAB, writer, budget=budget))


def test_mixed_siblings_have_a_reference() -> None:
    found = referred(BuiltInWriter())
    assert found.reference is not None
    assert found.reference.text.splitlines() == [
        "Successful attempts call find_user, then get_booking.",
        "Attempts first part after find_user.",
        "Successful attempts call get_booking.",
    ]
    assert (found.cause, found.selection, found.siblings_read, found.num_replaced) == ("", "all", (0, 1), 0)
    assert (found.reference.task, found.reference.writer, found.reference.literals) == ("t1", "built-in", ())
    assert referred(BuiltInWriter()) == found


@pytest.mark.parametrize(
    "group",
    [
        siblings(pair().rollouts[0]),
        siblings(*[pair().rollouts[0]] * 3),
        siblings(pair().rollouts[1]),
        Group(TASK, ()),
    ],
)
def test_siblings_that_do_not_mix_have_none_and_no_writer_is_asked(group: Group) -> None:
    writer = Says(["text"])
    assert referred(writer, group).cause == "not mixed"
    assert writer.num_calls == 0


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (RuntimeError("no\n answer"), "writer raised: RuntimeError: no answer"),
        (TimeoutError(), "writer raised: TimeoutError"),
        ("", "writer gave nothing"),
        (" \n ", "writer gave nothing"),
        (None, "writer gave nothing: expected a text, got NoneType"),
        ({"text": "x"}, "writer gave nothing: expected a text, got dict"),
    ],
)
def test_whatever_a_writer_does_is_a_cause(said: Any, cause: str) -> None:
    writer = Says([said])
    found = referred(writer)
    assert (found.reference, found.cause, writer.num_calls) == (None, cause, 1)
    assert set(found.literals.placeholders) == {"mia", "b12"}  # credit keeps off them all the same


def test_a_cancelled_writer_is_no_cause() -> None:
    with pytest.raises(asyncio.CancelledError):
        referred(Says([asyncio.CancelledError()]))


def test_siblings_too_long_for_the_budget_have_none() -> None:
    writer = Says(["text"])
    found = referred(writer, budget=5)
    assert found.cause == "too long: not even one success and one failure fit into 5 tokens"
    assert writer.num_calls == 0


def test_the_budget_is_counted_in_the_policys_tokens() -> None:
    writer = Says(["text"])
    referred(writer)
    exactly = sum(len(LAB.encode_text(render_trace(trace))) for trace in writer.traces)
    assert referred(writer, budget=exactly).selection == "all"
    assert referred(writer, budget=exactly - 1).selection != "all"


def test_nothing_that_a_writer_reads_holds_a_literal() -> None:
    writer = Says(["text"])
    group = pair()
    referred(writer, group)
    told = "".join(map(render_trace, writer.traces))
    assert "mia" not in told
    assert "b12" not in told
    assert "name=hidden" in told
    assert "booking hidden cabin basic" in told


@pytest.mark.parametrize("slips", [0, 1, MAX_REPLACED_LITERALS, MAX_REPLACED_LITERALS + 1])
def test_a_few_slips_are_replaced_and_more_are_a_leak(slips: int) -> None:
    writer = Says(["they check " + " , ".join(["Mia", "B12", "\u201cb12\u201d"][at % 3] for at in range(slips))])
    found = referred(writer)
    if slips <= MAX_REPLACED_LITERALS:
        assert found.reference is not None
        assert found.num_replaced == slips == found.reference.text.count("hidden")
        assert not found.literals.find(found.reference.text)
        assert writer.num_calls == 1
    else:
        assert (found.reference, found.cause) == (None, "leak: 6 literals, more than 5 in one reference")
        assert (writer.num_calls, found.num_replaced) == (3, 6)


def test_a_leak_is_asked_again_twice() -> None:
    leak = "the gold_actions are these"
    found = referred(writer := Says([leak, leak, "they check first"]))
    assert found.reference is not None and found.reference.text == "they check first"
    assert writer.num_calls == 3
    named = "leak: it names gold_actions, which only a verifier knows"
    assert writer.refused == found.refused == (named, named)
    found = referred(Says([leak]))
    assert (found.cause, found.refused) == (named, (named, named, named))


def test_a_writer_that_says_it_may_do_better_is_asked_again_and_told_why() -> None:
    sorry = WriterFailed("malformed json: no object", may_retry=True)
    found = referred(writer := Says([sorry, sorry, "they check first"]))
    assert found.reference is not None and found.reference.text == "they check first"
    assert writer.refused == found.refused == ("malformed json: no object",) * 2
    found = referred(writer := Says([sorry]))
    assert (found.cause, len(found.refused), writer.num_calls) == ("malformed json: no object", 3, 3)
    found = referred(writer := Says([WriterFailed("unanswered timeout: three times")]))
    assert (found.cause, found.refused, writer.num_calls) == ("unanswered timeout: three times", (), 1)


def test_names_of_the_verifiers_facts_are_a_leak_and_everyday_words_are_not() -> None:
    group = pair()
    facts = {"state": True, "end_state": True}
    judged = replace(
        group, rollouts=tuple(replace(r, verdict=Verdict(r.reward, r.success, facts)) for r in group.rollouts)
    )
    assert referred(Says(["look at the End_State first"]), judged).cause.startswith("leak: it names end_state")
    assert referred(Says(["look at the state first"]), judged).reference is not None


def test_what_looks_like_a_secret_is_replaced_though_nobody_declared_it() -> None:
    found = referred(Says(["use password='open sesame' and 4111111111111111"]))
    assert found.reference is not None
    assert found.reference.text == "use password='hidden_secret' and hidden_number"


def test_what_the_writer_lists_in_its_fifth_part_stays_out_of_text_and_credit() -> None:
    text = "they go to Oslo first .\nkeep masked : 'oslo' , hidden , none , ab , b12 ."
    found = referred(Says([text]))
    assert found.reference is not None
    assert found.reference.text == "they go to hidden first .\nkeep masked : 'hidden' , hidden , none , ab , hidden ."
    assert found.reference.literals == ("oslo",)
    assert set(found.literals.placeholders) == {"mia", "b12", "oslo"}
    good = pair().rollouts[0]
    assert (~tokens_outside_literals(good, found.literals, LAB)).sum() == (
        ~tokens_outside_literals(good, find_literals(pair(), LAB), LAB)
    ).sum() + 1


def test_a_line_for_the_runs_folder_is_plain_json_without_what_was_masked() -> None:
    found = referred(Says(["they check B12 first"]))
    row = json.loads(json.dumps(found.to_json()))
    assert found.reference is not None
    assert row == {
        "task": "t1", "text": "they check hidden first", "hash": found.reference.hash, "writer": "says",
        "literals": [], "cause": "", "how": "all", "contrast": "success", "siblings": [0, 1],
        "replaced": 1, "refused": [],
    }  # fmt: skip
    none = referred(Says([""])).to_json()
    assert (none["cause"], none["writer"], "text" in none) == ("writer gave nothing", None, False)


def test_contrast_refers_and_fits() -> None:
    contrast = ReferenceBuilder(BuiltInWriter(), LAB, PLENTY, min_tokens=10)
    found = run(contrast.build(pair()))
    assert found == referred(BuiltInWriter())
    whole = encode_reference(LAB, found.reference.text)
    fitted = contrast.fit_to_window(found.reference, len(whole) - 1)
    assert fitted and fitted.dropped_lines == 1
    assert contrast.fit_to_window(found.reference, 9) is None
    assert run(ReferenceBuilder(BuiltInWriter(), LAB, 5, 10).build(pair())).cause.startswith("too long")


def test_the_parts_before_and_after_the_writer_wait_for_nothing() -> None:
    request = prepare_reference(pair(), LAB, budget=PLENTY)
    assert isinstance(request, WriterInput)
    refused = finish_reference(request, WriterAnswer("the gold_actions are these"), "says")
    assert isinstance(refused, WriterInput)
    assert refused == replace(request, refused=("leak: it names gold_actions, which only a verifier knows",))
    assert request.refused == ()  # each attempt is a value of its own
    done = finish_reference(refused, WriterAnswer("they check first"), "says")
    leak = "the gold_actions are these"
    assert done == referred(Says([leak, "they check first"]))
    failed = finish_reference(refused, WriterAnswer(failure="unanswered timeout: of b12"), "says")
    assert isinstance(failed, ReferenceResult)
    assert (failed.cause, failed.refused) == ("unanswered timeout: of hidden", refused.refused)
    assert isinstance(prepare_reference(pair(), LAB, budget=5), ReferenceResult)


@pytest.mark.parametrize("reads_steps", [True, False])
def test_steps_are_built_for_a_writer_that_reads_them_alone(reads_steps: bool) -> None:
    writer = Says(["look first"], reads_steps=reads_steps)
    assert referred(writer).reference == referred(Says(["look first"])).reference
    assert writer.traces
    assert all(bool(trace.steps) == reads_steps for trace in writer.traces)


def test_literals_are_not_creditable_where_there_is_a_reference() -> None:
    contrast = ReferenceBuilder(BuiltInWriter(), LAB, PLENTY, min_tokens=10)
    found = run(contrast.build(pair()))
    masks = contrast.tokens_outside_literals(pair(), found)
    for mask, each in zip(masks, pair().rollouts, strict=True):
        assert mask.tolist() == tokens_outside_literals(each, found.literals, LAB).tolist()
        assert not mask.all()
    masks = contrast.tokens_outside_literals(pair(), replace(found, reference=None))
    assert [mask.tolist() for mask in masks] == [[True] * len(each.response) for each in pair().rollouts]


SECRETS = st.lists(
    st.text(string.ascii_letters + string.digits + "-.éß", min_size=3, max_size=12).filter(
        lambda secret: not secret.casefold().startswith(("attempt", "success", "failure", "say", "call", "heard"))
    ),
    min_size=1,
    max_size=3,
)
"""No words of a rendered trace's own, nor their plurals."""


@settings(max_examples=40, deadline=None)
@given(secrets=SECRETS, seed=st.integers(0, 999))
def test_no_secret_is_in_what_is_asked_or_kept(secrets: list[str], seed: int) -> None:
    """Property 21, through the whole room: a tool tells secrets, the writer repeats what it reads and adds its own."""
    rng = random.Random(seed)

    def dressed() -> str:
        form = rng.choice([str, str.upper, str.lower, "'{}'".format, '"{}"'.format, "\u201c{}\u201d".format])
        return form(rng.choice(secrets))

    group = siblings(
        *(
            rollout([call("find_user", "name", "mia"), end], ["x"], end == DONE, private=tuple(secrets))
            for end in (DONE, SORRY)
        )
    )
    heard = tuple(
        replace(
            r, messages=tuple({**m, "content": f"is {dressed()} ."} if m["role"] == "tool" else m for m in r.messages)
        )
        for r in group.rollouts
    )
    writer = Says([f"they see {dressed()} , {dressed()} ."])
    found = referred(writer, replace(group, rollouts=heard))
    for trace in writer.traces:
        assert not found.literals.find(render_trace(trace))
        assert trace.turns[0].replies[0].strip("is .'\"\u201c\u201d") == "hidden"
    assert found.reference is not None
    assert not found.literals.find(found.reference.text)
    assert found.reference.text.count("hidden") in (1, 2)  # 0000 , 0000 is also one with something in between


def test_what_a_writer_says_as_it_fails_is_masked_too() -> None:
    found = referred(Says([RuntimeError("cannot write of b12 with Bearer abcdefgh12345678ijklmnop")]), pair())
    assert found.reference is None
    assert found.cause.startswith("writer raised: RuntimeError: cannot write of hidden with")
    assert "12345678" not in found.cause


def test_receive_counts_only_what_it_replaced() -> None:
    received = screen_for_leaks("hidden and b12", find_literals(pair(), LAB), ())
    assert (received.text, received.num_replaced, received.refusal) == ("hidden and hidden", 1, "")
