"""Short forms of text for people: a long text without its middle, an exception on one line."""


def cut_middle(text: str, max_chars: int) -> str:
    """Keep `max_chars` characters, half from each end; a marker says how many are missing. A short text stays as it is.

    >>> cut_middle("abcdefgh", 3)
    'ab ... 5 characters cut ... h'
    """
    if len(text) <= max_chars:
        return text
    head, tail = (max_chars + 1) // 2, max_chars // 2
    return f"{text[:head]} ... {len(text) - max_chars} characters cut ... {text[len(text) - tail :]}"


def describe_exception(error: BaseException) -> str:
    """The type and the whole message of an exception, on one line.

    >>> describe_exception(ValueError("no\\ndatabase"))
    'ValueError: no database'
    """
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")


def get_first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type where the message is empty.

    >>> get_first_line(OSError("no config.json\\nSee the documentation for more"))
    'no config.json'
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
