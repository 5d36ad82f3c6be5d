"""Two environments behind a real OpenEnv server, run by the Python of .venv-openenv: server.py KIND PORT.

`tools` has MCP tools, as a stock room: look an item up, then take the right number. `action` has one type of action: a
word is guessed.
"""

import sys
from typing import Any

import uvicorn
from fastmcp import FastMCP  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.http_server import create_fastapi_app  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.interfaces import Environment  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.mcp_environment import MCPEnvironment  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.mcp_types import (  # pyright: ignore[reportMissingImports]
    CallToolAction,
    CallToolObservation,
)
from openenv.core.env_server.types import Action, Observation, State  # pyright: ignore[reportMissingImports]

MAX_SESSIONS = 4


class StockRoom(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        mcp = FastMCP("stock room")
        self._stock, self._taken = 0, 0

        @mcp.tool
        def find_user(name: str) -> dict[str, Any]:
            """Look a customer up.

            Args:
                name: of the customer
            """
            if name == "max":
                raise ValueError("no such customer")
            return {"name": name, "stock": self._stock}

        @mcp.tool
        def take(count: int) -> str:
            """Take some."""
            self._taken = count
            return f"took {count}"

        super().__init__(mcp)

    def reset(self, seed: int | None = None, stock: int = 0, **_: Any) -> Observation:
        if stock < 0:
            raise ValueError("stock must not be negative")
        self._stock, self._taken = stock, 0
        return Observation(metadata={"seed": seed})

    def _step_impl(self, action: Action, **_: Any) -> Observation:
        raise NotImplementedError(type(action).__name__)

    async def step_async(self, action: Action, timeout_s: float | None = None, **more: Any) -> Observation:
        observation = await super().step_async(action, timeout_s, **more)
        if isinstance(action, CallToolAction) and action.tool_name == "take" and not observation.error:
            return observation.model_copy(update={"reward": float(self._taken == self._stock), "done": True})
        return observation

    @property
    def state(self) -> State:
        return State()


class Guess(Action):
    word: str


class Hint(Observation):
    text: str


class GuessWord(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._word = ""

    def reset(self, seed: int | None = None, word: str = "yes", **_: Any) -> Hint:
        self._word = word
        return Hint(text=f"{len(word)} letters")

    def step(self, action: Guess, **_: Any) -> Hint:
        if action.word == self._word:
            return Hint(text="right", reward=0.75, done=True)
        return Hint(text="wrong", reward=0.25)

    @property
    def state(self) -> State:
        return State()


KINDS = {"tools": (StockRoom, CallToolAction, CallToolObservation), "action": (GuessWord, Guess, Hint)}

if __name__ == "__main__":
    uvicorn.run(
        create_fastapi_app(*KINDS[sys.argv[1]], max_concurrent_envs=MAX_SESSIONS),
        port=int(sys.argv[2]),
        log_level="warning",
    )
