"""Which values of a group are literals, and which tokens they take out of credit."""

import random
from dataclasses import replace
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import subword_chats
from helpers.group import LAB, TASK, call, pair, rollout, siblings
from sgcd.chat import Chat
from sgcd.contrast.leakage.literals import (
    completing_values,
    find_literals,
    find_secret_literals,
    tokens_outside_literals,
)
from sgcd.contrast.leakage.masking import Literals
from sgcd.records import Group, Rollout


def known(*rollouts: Rollout, chat: Chat = LAB) -> set[str]:
    return set(find_literals(siblings(*rollouts), chat).placeholders)


def test_what_any_sibling_declares_is_a_literal_however_short() -> None:
    broken = replace(rollout(["it is done thank you"], private=("lima",)), broken="reply: late", verdict=None)
    one, other = (rollout(["it is done thank you"], private=told) for told in (("mia", "no"), ("b12",)))
    assert set(find_literals(Group(TASK, (one, other), (broken,)), LAB).placeholders) == {"mia", "no", "b12", "lima"}


def test_what_is_declared_with_a_kind_is_called_by_it() -> None:
    kinds = {"4111": "card", "mia": "customer"}
    one = rollout(["it is done thank you"], private=("4111", "mia", "oslo"), private_kinds=kinds)
    literals = find_literals(siblings(one, rollout(["it is done thank you"], private=("mia",))), LAB)
    assert literals.mask("card 4111 of Mia in Oslo") == "card hidden_card of hidden_customer in hidden"


def test_a_short_final_answer_is_a_literal_and_of_a_long_one_only_words_with_a_digit() -> None:
    assert known(rollout(["paris"])) == {"paris"}
    assert known(rollout(["no"])) == set()
    said = "your booking is b12 thank you"
    assert known(rollout([said])) == {"b12"}
    assert known(rollout([said], ending="turn_limit")) == set()
    assert known(rollout(["paris", said], ["error : wrong value"])) == {"b12"}


def test_thinking_is_no_final_answer() -> None:
    assert known(rollout(["<think> b13 </think> paris"])) == {"paris"}


def test_values_passed_to_the_call_that_ended_a_rollout_are_literals() -> None:
    ended = rollout([call("find_user", "name", "mia"), call("send_voucher", "booking", "b12")], ["x"], ending="ended")
    assert completing_values(ended) == ["b12"]
    assert known(ended) == {"b12"}
    assert known(replace(ended, end_reason="turn_limit")) == set()


def test_values_that_a_tool_lists_for_everyone_are_no_literals() -> None:
    ended = rollout([call("change_day", "booking", "b12", "day", "monday")], ending="ended")
    listed = {"type": "function", "function": {"parameters": {"properties": {"day": {"enum": ["monday", "friday"]}}}}}
    assert known(replace(ended, tools=(listed,))) == {"b12"}
    assert known(ended) == {"b12", "monday"}


def test_numbers_and_lists_passed_to_a_call_are_literals() -> None:
    ended = rollout([call("add_bags", "booking", "b12")], ending="ended")
    told = replace(ended.turns[0].calls[0], arguments={"sum": 4711, "of": ["b7x", {"by": "mia li"}], "all": True})
    assert known(replace(ended, turns=(replace(ended.turns[0], calls=(told,)),))) == {"4711", "b7x", "mia li"}


@pytest.mark.parametrize(
    ("text", "literals"),
    [
        ("Authorization: Bearer abc.DEF-123_x", {"abc.def-123_x": "hidden_token"}),
        ("eyJhbGciOi.eyJzdWIi.c2ln", {"eyjhbgcioi.eyjzdwii.c2ln": "hidden_token"}),
        ("card 4111 1111 1111 1111 is", {"4111 1111 1111 1111": "hidden_number", "4111111111111111": "hidden_number"}),
        ("4111111111111", {"4111111111111": "hidden_number"}),
        ("411111111111", {}),
        ("3782 822463 10005", {"3782 822463 10005": "hidden_number", "378282246310005": "hidden_number"}),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15, call 0123 456 789", {}),
        ("41111111111111111111", {}),
        ("login(password='open sesame')", {"open sesame": "hidden_secret"}),
        ('{"access_token": "tk-9", "cvv": "123"}', {"tk-9": "hidden_secret", "123": "hidden_secret"}),
        ("card=ab12 password: s3cret", {"ab12": "hidden_secret", "s3cret": "hidden_secret"}),
        ("password: at least 8 letters", {}),
        ("commit 0123456789abcdef0123", {"0123456789abcdef0123": "hidden_code"}),
        ("QWxhZGRpbjpvcGVuIHNlc2FtZQ1=", {"qwxhzgrpbjpvcgvuihnlc2ftzq1=": "hidden_code"}),
        ("get_reservation_details_for_user internationalisations", {}),
    ],
)
def test_what_looks_like_a_secret(text: str, literals: dict[str, str]) -> None:
    assert find_secret_literals(text).placeholders == literals


@pytest.mark.parametrize("text", ["a" * 200_000, "token" * 40_000, "a1-" * 70_000, "1 " * 100_000, "aB1" * 70_000])
def test_a_long_observation_is_looked_through_at_once(text: str) -> None:
    before = process_time()
    find_secret_literals(text)
    assert process_time() - before < 3


def test_secrets_are_found_in_what_was_heard_and_in_named_arguments() -> None:
    heard = rollout([call("find_user", "name", "mia"), "it is done thank you"], ["done"])
    messages = ({**heard.messages[0], "content": "password=hunter2"}, *heard.messages[1:])
    heard = replace(heard, messages=messages)  # as it stands there, whatever the lab's tokenizer knows of it
    named = rollout([call("find_user", "name", "mia"), "it is done thank you"])
    told = replace(named.turns[0].calls[0], arguments={"access_token": "delhi"})
    named = replace(named, turns=(replace(named.turns[0], calls=(told,)), named.turns[1]))
    plain = Literals.from_texts(["hunter2", "delhi"], "secret").placeholders
    assert find_literals(siblings(heard, named), LAB).placeholders == plain


def flagged(one: Rollout, literals: Literals, chat: Chat) -> list[str]:
    text, spans = chat.decode_with_spans(one.response)
    flags = tokens_outside_literals(one, literals, chat)
    return [text[start:stop].strip() for (start, stop), flag in zip(spans.tolist(), flags, strict=True) if not flag]


def test_every_token_of_a_literal_is_taken_out_of_credit_wherever_it_stands() -> None:
    good = pair().rollouts[0]
    literals = find_literals(pair(), LAB)
    assert flagged(good, literals, LAB) == ["mia", "mia", "b12", "b12", "b12"]  # named in calls, heard in observations
    assert tokens_outside_literals(good, Literals({}), LAB).all()


def test_a_literal_of_several_tokens_is_taken_out_whole() -> None:
    chat = subword_chats.chat()
    one = rollout(["it is NEW york , b12345 , not newyorker"], chat=chat)
    assert "".join(flagged(one, Literals.from_texts(["New York", "b12345"]), chat)) == "NEWyorkb12345"
    assert len(flagged(one, Literals.from_texts(["b12345"]), chat)) > 2


def test_values_too_short_for_literals_count_where_they_completed_the_task() -> None:
    answers = [call("get_flight", "booking", "is"), call("send_voucher", "booking", "is")]
    ended = rollout(answers, ["it is done"], ending="ended")
    flags = tokens_outside_literals(ended, find_literals(siblings(ended), LAB), LAB)
    last = ended.turns[-1]
    assert np.flatnonzero(~flags).tolist() == [last.start + answers[1].split().index("is")]


@settings(max_examples=40, deadline=None)
@given(secret=st.text("abcxyz0189éß", min_size=3, max_size=5), seed=st.integers(0, 99))
@pytest.mark.parametrize("kind", ["bytes", "fallback"])
def test_flags_are_false_exactly_where_a_secret_is_touched(kind: str, secret: str, seed: int) -> None:
    """Held against a character-by-character reading of the definition."""
    chat, rng = subword_chats.chat(kind), random.Random(seed)  # pyright: ignore[reportArgumentType]
    written = " ".join(rng.choice([secret, f"the{secret}", "booking", "😀", f'"{secret}"']) for _ in range(6))
    one = rollout([written], chat=chat)
    text, spans = chat.decode_with_spans(one.response)
    inside = np.zeros(len(text) + 1, bool)
    for at in range(len(text)):
        alone = not text[at - 1 : at].isalnum() and not text[at + len(secret) : at + len(secret) + 1].isalnum()
        if text[at : at + len(secret)] == secret and alone:
            inside[at : at + len(secret)] = True
    expected = [not inside[start:stop].any() for start, stop in spans.tolist()]
    assert tokens_outside_literals(one, Literals.from_texts([secret]), chat).tolist() == expected
