"""Files of recorded rollouts: lines and documents, siblings, and what cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.recorded import BOOK, MIXED, answered, asks, booking, call, says, write_lines
from sgcd.chat.words import WordChat
from sgcd.errors import DataError
from sgcd.recorded.encode import encode_groups
from sgcd.recorded.files import RowFile, find_recorded_files
from sgcd.recorded.groups import MAX_SIBLINGS, index_rollouts
from sgcd.recorded.points import credit_of_points, parting_turns
from sgcd.records import Group


def rewards(path: Path) -> dict[str, list[float]]:
    return {one.task: list(one.rewards) for one in index_rollouts([path]).siblings.values()}


def group_of(path: Path, rows: list[Any]) -> Group:
    index = index_rollouts([write_lines(path / "some.jsonl", rows)])
    [siblings] = index.siblings.values()
    return encode_groups(index, [siblings], WordChat(), success=1.0, window=2**31).groups[0]


@pytest.mark.parametrize(
    "write",
    [
        lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
        lambda rows: "\n\n".join(json.dumps(row) for row in rows),
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows, indent=1),
        lambda rows: json.dumps({"rollouts": rows}),
    ],
    ids=["lines", "blank lines", "one list", "a list over lines", "an object with a list"],
)
def test_lines_and_documents_are_the_same_rollouts(tmp_path: Path, write: Any):
    path = tmp_path / "some.json"
    path.write_text(write(MIXED))
    assert rewards(path) == {"t1": [1.0, 0.0, 0.0, 1.0]}
    index = index_rollouts([path])
    [siblings] = index.mixed(0)
    place, read = index.read(siblings, 2)
    assert place.number in (3, 5)  # lines count blank ones
    assert read.messages == MIXED[2]["messages"]


def test_one_rollout_alone_is_a_document_too(tmp_path: Path):
    path = tmp_path / "some.json"
    path.write_text(json.dumps(MIXED[0], indent=1))
    assert rewards(path) == {"t1": [1.0]}


def test_a_folder_is_all_its_files(tmp_path: Path):
    write_lines(tmp_path / "a.jsonl", MIXED[:1])
    write_lines(tmp_path / "b.jsonl", MIXED[1:])
    (tmp_path / "notes.txt").write_text("no rollouts")
    assert [file.name for file in find_recorded_files([tmp_path])] == ["a.jsonl", "b.jsonl"]


def test_rows_that_are_no_rollouts_are_counted_with_the_first_of_each_kind(tmp_path: Path):
    path = write_lines(tmp_path / "some.jsonl", [*MIXED, '{"half', {"text": "a"}, {"text": "b"}])
    index = index_rollouts([path])
    assert (index.num_rows, index.num_usable) == (7, 4)
    assert sorted(index.unusable.values()) == [1, 2]
    assert any(cause.endswith(f"(the first: {path}, line 6)") for cause in index.unusable)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hello\n", "line 1: not JSON"),
        ('{"text": "a"}\n{"text": "b"}\n', "line 1: messages: missing"),
        ("[1]", "row 1: expected an object with messages and a reward, got 1"),
        ("", "holds no rows"),
        ('{"messages": [', "not JSON"),
    ],
)
def test_a_file_without_rollouts_is_refused_by_its_first_row(tmp_path: Path, text: str, complaint: str):
    path = tmp_path / "some.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=complaint):
        index_rollouts([path])


def test_a_line_is_found_again_without_reading_those_before_it(tmp_path: Path):
    path = write_lines(tmp_path / "some.jsonl", [booking(2, number, task=f"täsk {number}") for number in range(50)])
    file = RowFile(path)
    places = [place for place, _ in file.rows()]
    assert [file.read(place)["reward"] for place in reversed(places)] == [*reversed(range(50))]


def test_of_many_siblings_as_many_of_each_outcome_are_compared(tmp_path: Path):
    few = index_rollouts([write_lines(tmp_path / "a.jsonl", [booking(2, 1.0)] * 3 + [booking(2, 0.0)] * 40)])
    chosen = next(iter(few.siblings.values())).choose(1.0)
    assert chosen == [0, 1, 2, *range(3, 16)]
    many = index_rollouts([write_lines(tmp_path / "b.jsonl", [booking(2, 0.2)] * 40 + [booking(2, 0.7)] * 30)])
    chosen = next(iter(many.siblings.values())).choose(1.0)
    assert len(chosen) == MAX_SIBLINGS
    assert sum(index >= 40 for index in chosen) == MAX_SIBLINGS // 2


def test_a_rollout_is_encoded_word_by_word(tmp_path: Path):
    messages = [asks("two"), call("book", seats=2), answered("Error: full"), says("Sorry , full.")]
    [rollout] = group_of(tmp_path, [{"messages": messages, "reward": 0.0}]).rollouts
    [book, sorry] = rollout.turns
    assert [(one.name, one.arguments, one.is_error) for one in book.calls] == [("book", {"seats": 2}, True)]
    assert (sorry.text, rollout.end_reason, rollout.success) == ("Sorry , full.", "answered", False)
    assert rollout.response_mask.tolist() == [
        *[True] * (book.stop - book.start), False, False, False, *[True] * (sorry.stop - sorry.start)
    ]  # fmt: skip


def test_what_a_rollout_cannot_be_used_for_is_counted(tmp_path: Path):
    rows = [*MIXED, booking(2, 0.0) | {"messages": [asks("a"), says("b"), says("c")]}]
    index = index_rollouts([write_lines(tmp_path / "a.jsonl", rows)])
    encoded = encode_groups(index, index.mixed(0), WordChat(), success=1.0, window=2**31)
    assert dict(encoded.unusable) == {"two assistant turns in a row": 1}
    short = encode_groups(index, index.mixed(0), WordChat(), success=1.0, window=30)
    assert short.unusable["longer than 30 tokens"] == 4


def test_weights_follow_the_points_at_which_siblings_part(tmp_path: Path):
    rollout = group_of(tmp_path, MIXED).rollouts[0]
    row = {"points": [{"turns": {"0": 2, "1": 1}}, {"turns": {"0": 2}}]}
    assert parting_turns(row, 0) == [2]
    assert parting_turns(row, 3) == []
    weight = credit_of_points(rollout, row, 1.0).weight
    second = rollout.turns[1]
    assert (weight[second.start : second.stop] == 2).all()
    assert weight.sum() == len(weight) + second.stop - second.start


@given(st.text())
def test_words_give_back_a_turn_without_the_space_at_its_end(text: str):
    chat = WordChat()
    ids = chat.encode_turn(text)
    decoded, spans = chat.decode_with_spans(ids)
    assert decoded == text.rstrip() + "\n"
    assert [decoded[start:stop] for start, stop in spans] == [chat.words[number] for number in ids]


def test_words_read_calls_as_they_were_given():
    turn, kinds = WordChat().parse_turn(WordChat().encode_turn(""), [BOOK])
    assert (turn.calls, len(kinds)) == ((), 1)
