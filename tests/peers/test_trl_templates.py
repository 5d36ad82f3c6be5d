"""The chat templates that TRL ships, as installed: conversations come back to the token, or a template is refused."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")
from helpers import chats
from helpers.chats import TOOLS, converse
from helpers.conversations import ASKS, ONE, REPLIES, WORDS, opened, thirty_turns
from sgcd.chat import Chat
from sgcd.errors import TemplateError

SHIPPED = Path(str(find_spec("trl").submodule_search_locations[0])) / "chat_templates"  # type: ignore[union-attr]
READ = {
    "qwen2_5": "Hermes",
    "qwen2_5_vl": "Hermes",
    "qwen3": "Hermes",
    "qwen3_instruct_2507": "Hermes",
    "qwen3_vl": "Hermes",
    "qwen3_5_think": "Qwen3.5",
    "qwen3_5_nothink": "Qwen3.5",
    "qwen3_6": "Qwen3.5",
    "qwen3_8": "Qwen3.5",
    "nemotron_3_nano": "Qwen3.5",
    "llama3": "Hermes",
    "llama3_1": "Llama 3",
    "llama3_2": "Llama 3",
    "gemma": "Hermes",
    "gemma3": "Hermes",
    "phi3": "Hermes",
    "phi3_5": "Hermes",
}
TRAINING = [f"{name}_training" for name in READ if (SHIPPED / f"{name}_training.jinja").is_file()]
MADE: dict[str, Chat] = {}


def chat(name: str) -> Chat:
    if name not in MADE:
        special, added = chats.QWEN, chats.QWEN_ADDED
        if name.startswith(("llama", "gemma")):
            special, added = (chats.LLAMA if name.startswith("llama") else chats.GEMMA), []
        if name.startswith("phi"):
            special, added = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"], []
        MADE[name] = chats.build((SHIPPED / f"{name}.jinja").read_text(encoding="utf-8"), special, added, name)
    return MADE[name]


def rendered(name: str, messages: list[Any]) -> tuple[str, list[int]]:
    tokenizer = chat(name).tokenizer
    text = tokenizer.apply_chat_template(messages, tools=list(TOOLS), tokenize=False)
    return text, tokenizer.apply_chat_template(messages, tools=list(TOOLS), tokenize=True, return_dict=False)


@pytest.mark.parametrize("name", READ)
def test_the_dialect_is_recognised(name: str) -> None:
    assert chat(name).call_format.name == READ[name]


@pytest.mark.parametrize("name", [*READ, *TRAINING])
def test_thirty_turns_come_back_to_the_token(name: str) -> None:
    here = chat(name)
    turns, replies = thirty_turns(here)
    played = converse(here, [here.encode_policy_text(turn) for turn in turns], replies)
    text, ids = rendered(name, played.messages)
    assert text == here.decode(np.array(played.ids, np.int32))
    grown = [index for index, turn in enumerate(turns) if turn.startswith("\n")]
    assert [index for index, same in enumerate(played.exact) if not same] == grown
    assert bool(grown) == opened(here)
    assert (ids == played.ids) == (not grown)


@pytest.mark.parametrize("name", READ)
def test_thirty_turns_without_an_empty_thought_come_back_to_the_very_ids(name: str) -> None:
    here = chat(name)
    turns, replies = thirty_turns(here)
    turns = [turn.removeprefix("\n") for turn in turns]
    played = converse(here, [here.encode_policy_text(turn) for turn in turns], replies)
    assert all(played.exact)
    assert rendered(name, played.messages)[1] == played.ids


@pytest.mark.parametrize("name", READ)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_sampled_and_heard_the_text_comes_back(name: str, data: st.DataObject) -> None:
    here = chat(name)
    stray = st.lists(st.integers(0, here.vocab_size - 1), max_size=6).map(lambda ids: np.array(ids, np.int32))
    drawn = data.draw(st.lists(st.one_of(WORDS.map(here.encode_policy_text), stray), min_size=1, max_size=4))
    turns = [turn[~np.isin(turn, here.end_ids)].astype(np.int32) for turn in drawn]
    played = converse(here, turns, [data.draw(REPLIES) for _ in turns[1:]], cut=data.draw(st.booleans()))
    text, ids = rendered(name, played.messages)
    assert text == here.decode(np.array(played.ids, np.int32))
    assert ids == played.ids or not all(played.exact)


@pytest.mark.parametrize("name", READ)
def test_a_prompt_is_the_one_that_the_stock_template_writes(name: str) -> None:
    here, messages = chat(name), [{"role": "user", "content": "Hello, I am Zoë."}]
    stock = (SHIPPED / f"{name}.jinja").read_text(encoding="utf-8")
    if READ[name] == "Hermes" and "tools" not in stock:  # told of the tools in words
        return
    told: dict[str, Any] = {"tools": list(TOOLS), "tokenize": False, "add_generation_prompt": True}
    if "strftime_now" in stock:
        told["date_string"] = "26 Jul 2024"
    own = here.tokenizer.apply_chat_template(messages, chat_template=stock, **told)
    assert here.decode(here.encode_prompt(messages, TOOLS).token_ids) == own


@pytest.mark.parametrize("name", READ)
def test_what_follows_a_turn_is_what_the_stock_template_writes_there(name: str) -> None:
    here = chat(name)
    stock = (SHIPPED / f"{name}.jinja").read_text(encoding="utf-8")
    heard = ASKS if name.startswith(("gemma", "phi")) else ONE
    glue, clean = here.encode_reply(heard)
    messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "anything"}, *clean]
    whole = here.tokenizer.apply_chat_template(
        messages, chat_template=stock, tokenize=False, add_generation_prompt=True
    )
    assert whole.endswith(here.decode(glue))
    assert whole.partition("anything")[2] == here.decode(np.append(here.end_id, glue).astype(np.int32))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gemma4", "writes a call as"),
        ("lfm2_2_5", "writes a call as"),
        ("gptoss", "expected a special token"),
        ("glm4moe", "expected a special token"),
        ("smolvlm", "does not show an assistant turn"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(name: str, complaint: str) -> None:
    text = (SHIPPED / f"{name}.jinja").read_text(encoding="utf-8")
    with pytest.raises(TemplateError, match=complaint) as caught:
        chats.build(text, [*chats.QWEN, "<bos>", "<|turn>", "<turn|>"], chats.QWEN_ADDED, name)
    assert "\n" not in str(caught.value)
