"""Searches a text for secrets without any code of the masker, and in the opposite way: only the secret counts.

The masker looks for words with gaps and keeps their places. Here a text is squeezed until only letters and digits are
left, in every reading, and a secret is in it when it is a part of that; numbers are parsed as decimals.
"""

import base64
import html
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from unicodedata import digit, normalize
from urllib.parse import unquote

from helpers.planted import Planted, Secret

ALIKE = str.maketrans("асеорѕхуіјкνвмнт", "aceopsxyijkvbmht")
NUMBER = re.compile(r"\d[\d.,' \u00a0\u202f\u2009]*")


class SearchedText:
    """A text with all its decodings."""

    def __init__(self, text: str) -> None:
        self.text = text
        readings = [text]
        for _ in range(3):
            more = html.unescape(unquote(_unescaped(readings[-1])))
            readings += [more] if more != readings[-1] else []
        readings += [re.sub(r"<[^>]*>", "", reading) for reading in readings if "<" in reading]
        readings += [decoded for reading in [*readings] for decoded in _decoded(reading)]
        self.squeezed = {squeeze(reading) for reading in readings}
        self.numbers = {number for reading in readings for number in _numbers(reading)}

    def find_planted(self, planted: Planted) -> str:
        """The form in which the text holds a secret; empty if it holds none."""
        if len(planted.form) >= 4 and planted.form in self.text:
            return "as it was planted"
        if planted.secret.amount is not None and planted.secret.amount in self.numbers:
            return "as a number"
        return self.find_secret(planted.secret)

    def find_secret(self, secret: Secret) -> str:
        core = squeeze(secret.value)
        part_length = max(6, -(-2 * len(core) // 3))
        for part, name in ((core, "whole"), (core[:part_length], "its beginning"), (core[-part_length:], "its end")):
            if any(part in squeezed for squeezed in self.squeezed):
                return name
        return ""


def squeeze(text: str) -> str:
    normalized = normalize("NFKD", normalize("NFKD", text).casefold()).translate(ALIKE)
    digits = "".join(str(digit(char, char)) for char in normalized)
    return "".join(char for char in digits if char.isalnum())


def _unescaped(text: str) -> str:
    def read(match: re.Match[str]) -> str:
        try:
            return str(json.loads(f'"{match[0]}"'))
        except json.JSONDecodeError:
            return match[0]

    text = re.sub(r"\\x([0-9a-fA-F]{2})", r"\\u00\1", text)
    text = re.sub(r"(?:\\u[0-9a-fA-F]{4})+|\\[\"\\/bfnrt]", read, text)
    return re.sub(r"\\([^\w\s])", r"\1", text)


def _decoded(text: str) -> Iterator[str]:
    for word in re.split(r"[^A-Za-z0-9+/=_-]+", text):
        bare = word.strip("=").replace("-", "+").replace("_", "/")
        padded = bare + "=" * (-len(bare) % 4)
        for decode, encoded in ((base64.b64decode, padded), (bytes.fromhex, bare)):
            try:
                decoded = decode(encoded).decode()
            except ValueError:
                continue
            if len(decoded) > 2:
                yield decoded


def _numbers(text: str) -> Iterator[Decimal]:
    normalized = normalize("NFKC", text)
    for match in NUMBER.finditer("".join(str(digit(char, char)) for char in normalized)):
        number = match[0].rstrip(".,' ")
        digits = re.sub(r"\D", "", number)
        yield Decimal(digits)
        for point in re.finditer(r"[.,]", number):
            after = len(re.sub(r"\D", "", number[point.start() :]))
            yield Decimal(digits).scaleb(-after)
