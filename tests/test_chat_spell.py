"""The text of ids, and which stretch of it each id has a part in."""

from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import subword_chats
from sgcd.chat import Chat
from sgcd.lab import policy

CHATS = {
    "words": policy.build_lab_chat(),
    "bytes": subword_chats.chat("bytes"),
    "fallback": subword_chats.chat("fallback"),
}
EVERY = pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)


def parts(chat: Chat, text: str) -> list[str]:
    told, spans = chat.decode_with_spans(chat.encode_policy_text(text))
    return [told[start:stop] for start, stop in spans.tolist()]


def test_words_are_spelt_with_the_space_before_them() -> None:
    assert parts(CHATS["words"], "<call> find_user name mia </call> <|end|>") == [
        "<call>", " find_user", " name", " mia", " </call>", " <|end|>",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["bytes", "fallback"])
def test_pieces_of_a_word_follow_each_other(kind: str) -> None:
    found = parts(CHATS[kind], "pays 4711 booking")
    assert "".join(found) == "pays 4711 booking"
    assert len(found) > 3


@pytest.mark.parametrize("kind", ["bytes", "fallback"])
def test_a_character_of_several_ids_belongs_to_each(kind: str) -> None:
    found = parts(CHATS[kind], "mia 😀 the 東京 é!")
    assert found.count("😀") == 4
    assert found.count("東") == found.count("京") == 3
    assert "".join(dict.fromkeys(found)).replace(" ", "") == "mia😀the東京é!"


@EVERY
def test_nothing_is_spelt_as_nothing(chat: Chat) -> None:
    text, spans = chat.decode_with_spans(np.zeros(0, np.int32))
    assert (text, spans.shape) == ("", (0, 2))


@EVERY
@settings(max_examples=40, deadline=None)
@given(draws=st.lists(st.integers(0, 10**6), max_size=40))
def test_whatever_was_sampled_every_character_has_its_ids(chat: Chat, draws: list[int]) -> None:
    """Also half characters and stray bytes, which a policy may sample."""
    ids = np.array([draw % chat.vocab_size for draw in draws], np.int32)
    text, spans = chat.decode_with_spans(ids)
    assert text == chat.decode(ids)
    assert spans.shape == (len(ids), 2)
    assert (np.diff(spans, axis=0) >= 0).all()  # in order
    covered = np.zeros(len(text), bool)
    for start, stop in spans.tolist():
        assert 0 <= start <= stop <= len(text)
        covered[start:stop] = True
    assert covered.all()


@pytest.mark.parametrize("chat", [CHATS["words"], CHATS["bytes"]], ids=["words", "bytes"])
@settings(max_examples=40, deadline=None)
@given(draws=st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_a_stretch_ends_where_what_is_certain_ends(chat: Chat, draws: list[int]) -> None:
    """Decoding only what comes before an id never tells more of the text than up to the id's start."""
    ids = np.array([draw % chat.vocab_size for draw in draws], np.int32)
    text, spans = chat.decode_with_spans(ids)
    for place, (start, _) in enumerate(spans.tolist()):
        before = chat.decode(ids[:place])
        assert text[:start] == before[:start]


def test_a_long_response_with_stray_bytes_takes_no_time() -> None:
    chat = CHATS["fallback"]
    ids = np.random.Generator(np.random.Philox(key=1)).integers(0, chat.vocab_size, 8000).astype(np.int32)
    before = process_time()
    assert chat.decode_with_spans(ids)[0] == chat.decode(ids)
    assert process_time() - before < 3
