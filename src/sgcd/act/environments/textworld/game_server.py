"""Plays TextWorld's games for `fork_server.py`. Runs in TextWorld's own Python, without sgcd."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_STATUS_LINE = re.compile(r"\n>[^\n]*\Z")
"""The prompt of the game, with the room and the number of moves behind it."""
_END_QUESTION = "\n\n\nWould you like to RESTART"

_REFUSED_WORDS = frozenset(
    "quit restart restore save script noscript transcript recording replay undo verify oops".split()
)
"""What a player says to the program and not to the game: it would write files, or begin anew."""
_QUIT = re.compile(r"(^|[.,;]|\bthen\b)\s*q\s*($|[.,;])", re.IGNORECASE)
"""Quit by its letter; a thing may be called type Q passkey."""
_MAX_CHARS = 200

_Json = dict[str, Any]
_RunLimited = Callable[[Callable[[], Any]], Any]


def refuse_command(command: str) -> str:
    """Why the game does not get a command; empty where it does.

    >>> refuse_command("take key. Save")
    'save is no command of the game'
    """
    if not (command.isascii() and command.isprintable()) or len(command) > _MAX_CHARS:
        return f"a command is one line of at most {_MAX_CHARS} plain characters"
    if _QUIT.search(command):
        return "q is no command of the game"
    words = [word for word in re.findall(r"\w+", command.lower()) if word in _REFUSED_WORDS]
    return f"{words[0]} is no command of the game" if words else ""


class GameLibrary:
    """A folder of games, and the package."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.textworld: Any = import_module("textworld")

    def open_episode(self, run_limited: _RunLimited) -> "GameEpisode":
        return GameEpisode(self, run_limited)

    def start(self, name: str, *, admissible: bool) -> Any:
        infos = self.textworld.EnvInfos(
            won=True, lost=True, objective=True, admissible_commands=admissible, extras=["walkthrough"]
        )
        return self.textworld.start(str(self.folder / f"{name}.z8"), infos)


class GameEpisode:
    """One game after another."""

    def __init__(self, library: GameLibrary, run_limited: _RunLimited) -> None:
        self.library = library
        self.run_limited = run_limited
        self.game: Any = None
        self.state: Any = None
        self.admissible = False

    def answer(self, request: _Json) -> _Json:
        """Carry out one request: open or command."""
        match request["request"]:
            case "open":
                return self._open(request["game"], admissible=request["admissible"])
            case "command":
                return self._type(request["command"])
            case unknown:
                raise ValueError(f"unknown request {unknown}")

    def _open(self, name: str, *, admissible: bool) -> _Json:
        if self.game is not None:
            self.game.close()
        self.admissible = admissible
        self.game = self.library.start(name, admissible=admissible)
        self.state = self.game.reset()
        text = self.state.feedback[self.state.feedback.find(self.state.objective) :]  # without the title above it
        return self._describe(text) | {"walkthrough": list(self.state["extra.walkthrough"])}

    def _type(self, command: str) -> _Json:
        if refusal := refuse_command(command):
            return self._describe(f"error : {refusal}") | {"is_error": True}
        self.state, _, _ = self.run_limited(lambda: self.game.step(command))
        return self._describe(self.state.feedback) | {"is_error": False}

    def _describe(self, text: str) -> _Json:
        """What the player reads, and whether the game is won or lost."""
        text = _STATUS_LINE.sub("", text).partition(_END_QUESTION)[0]
        text = re.sub(r"\n{3,}", "\n\n", text).strip()
        if self.admissible and not (self.state.won or self.state.lost):
            text += "\n\nCommands: " + ", ".join(self.state.admissible_commands)
        return {"text": text, "is_won": bool(self.state.won), "is_lost": bool(self.state.lost)}
