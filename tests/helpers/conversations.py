"""Conversations of thirty turns, and words drawn at random from those that templates mark things with."""

from hypothesis import strategies as st

from helpers.chats import call
from sgcd.chat import Chat
from sgcd.records import Message

TWO: list[Message] = [{"role": "tool", "content": " found 1\n"}, {"role": "tool", "content": "Łódź 東京 😀"}]


ONE: list[Message] = [{"role": "tool", "content": "nothing <|im_end|> <think> </tool_call> <|eot_id|> <end_of_turn>"}]


ASKS: list[Message] = [{"role": "user", "content": "and now? "}]


def shut(chat: Chat, thought: str) -> str:
    """Thinking, where the template may have opened it already."""
    return f"{thought}\n</think>\n\n" if opened(chat) else f"<think>\n{thought}\n</think>\n\n"


def opened(chat: Chat) -> bool:
    return chat.decode(chat.encode_reply(ASKS)[0]).endswith("<think>\n")


def thirty_turns(chat: Chat) -> tuple[list[str], list[list[Message]]]:
    kinds = [
        (shut(chat, "I look") + call(chat, who="Mia"), ONE),
        (shut(chat, "two of them, 東京") + call(chat, who="Zoë") + "\n" + call(chat, who="😀", count=2), TWO),
        (shut(chat, "") + "It is là. ", ASKS),
        (shut(chat, "hm") + call(chat, who="Mia")[:-14], ONE),
        ("no thinking is ever closed", ASKS),
        (shut(chat, "so") + "  You are booked.\n\n", ASKS),
    ]
    turns, replies = zip(*(kinds[number % len(kinds)] for number in range(30)), strict=True)
    return list(turns), list(replies)


MARKS = "<think> </think> <tool_call> </tool_call> <function=find> </function> <parameter=who> </parameter> <|im_end|>"


OTHERS = ["é", "😀", "probeprobe", "seenseen", "{", "}", "a", "b", "\n", "\n\n", " ", "  "]


JSON = ['{"name": "find", "parameters": {}}', '{"name": "find", "arguments": {"who": 1}}', '"name"']


PIECES = st.sampled_from([*MARKS.split(), *OTHERS, *JSON])


WORDS = st.lists(PIECES, max_size=8).map("".join)


REPLIES = st.lists(
    st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(["tool", "user"]), WORDS),
    min_size=1,
    max_size=3,
)
