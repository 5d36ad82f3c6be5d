"""Text that can be seen: nothing hides, nothing turns the direction of its neighbours."""

import pytest

from sgcd.show.escape_text import escape_text, escape_token


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain über 你好 👍", "plain über 你好 👍"),
        ("a\n\tb", "a\n\tb"),
        ("a\u202eb\u2066c", "a⟨U+202E⟩b⟨U+2066⟩c"),
        ("\x00\x1b[31m\r", "⟨U+0000⟩⟨U+001B⟩[31m⟨U+000D⟩"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("torn \ud800", "torn ⟨U+D800⟩"),
        ("line\u2028line\u0085", "line⟨U+2028⟩line⟨U+0085⟩"),
        ("a\u00a0b", "a\u00a0b"),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
    ],
)
def test_what_leaves_no_mark_is_named(text: str, seen: str) -> None:
    assert escape_text(text) == seen
    escape_text(text).encode()


def test_line_ends_of_tokens_leave_a_mark() -> None:
    assert escape_token("}\n\n") == "}↵\n↵\n"
