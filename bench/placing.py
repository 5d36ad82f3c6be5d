"""Where a generated table stands in a page: between two markers, and nothing else of the page is touched."""


def replace_generated(text: str, generated: str, begin: str, end: str, title: str = "") -> str:
    """The text with what stands between the markers replaced; without markers it goes to the end, under `title`."""
    if begin not in text:
        text = f"{text.rstrip()}\n\n## {title}\n\n{begin}\n{end}\n"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{generated}\n\n{end}{rest.split(end)[1]}"
