"""Short forms of text: the middle of a long text, an exception on one line."""

import pytest

from sgcd.text import cut_middle, describe_exception, get_first_line


@pytest.mark.parametrize(
    ("keep", "cut"),
    [
        (10, "0123456789"),
        (9, "01234 ... 1 characters cut ... 6789"),
        (1, "0 ... 9 characters cut ... "),
    ],
)
def test_a_long_text_loses_its_middle(keep: int, cut: str) -> None:
    assert cut_middle("0123456789", keep) == cut


def test_an_exception_is_one_line() -> None:
    assert describe_exception(OSError("no\n  database")) == "OSError: no database"
    assert describe_exception(KeyError()) == "KeyError"
    assert get_first_line(OSError("\n no database\nsee the manual")) == "no database"
    assert get_first_line(KeyError()) == "KeyError"
