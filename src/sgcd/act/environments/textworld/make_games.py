"""Makes games of TextWorld in a folder, each from a seed of its own. Runs in TextWorld's own Python, without sgcd.

    python make_games.py FOLDER NAME...

A name is SPLIT-NUMBER. A game that is there already stays.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_SEEDS = {"train": 0, "dev": 100_000, "test": 200_000}
"""The seed of each split's first game."""
_NEXT_SEED = 1000
"""What is added to a seed whose game cannot be used."""
_ROOMS = 6
_OBJECTS = 12
_QUEST_LENGTH = 8
"""Commands of the walkthrough."""


def make_game(folder: Path, name: str) -> None:
    """Make a game whose walkthrough wins: where two things bear one name the commands of some are ambiguous."""
    path = folder / f"{name}.z8"
    if path.exists():
        return
    split, _, number = name.partition("-")
    unfinished = folder / f"unfinished-{name}.z8"
    seed = _SEEDS[split] + int(number)
    while not wins(generate(unfinished, seed)):
        seed += _NEXT_SEED
    unfinished.with_suffix(".ni").unlink()
    unfinished.with_suffix(".json").rename(path.with_suffix(".json"))
    unfinished.rename(path)


def generate(path: Path, seed: int) -> Path:
    """Generate and compile a game."""
    textworld: Any = import_module("textworld")
    options = textworld.GameOptions()
    options.nb_rooms, options.nb_objects, options.chaining.max_depth = _ROOMS, _OBJECTS, _QUEST_LENGTH
    options.quest_length = _QUEST_LENGTH
    options.seeds = seed
    options.path, options.force_recompile = str(path), True
    textworld.generator.compile_game(textworld.generator.make_game(options), options)
    return path


def wins(path: Path) -> bool:
    """Whether the game is won by its walkthrough."""
    textworld: Any = import_module("textworld")
    game = textworld.start(str(path), textworld.EnvInfos(won=True, extras=["walkthrough"]))
    state = game.reset()
    for command in state["extra.walkthrough"]:
        state, _, _ = game.step(command)
    game.close()
    return bool(state.won)


if __name__ == "__main__":
    for each in sys.argv[2:]:
        make_game(Path(sys.argv[1]), each)
