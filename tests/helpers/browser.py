"""A real browser for tests: Chromium without a window, spoken to through a pipe."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

START = """
import fcntl, os, sys
ask, answers = (fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3])
os.dup2(ask, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser listens on its file 3 and answers on 4."""


class Browser:
    """One page. Whatever it logs, throws or has blocked is kept in `complaints`."""

    def __init__(self, ask: IO[bytes], answers: IO[bytes]) -> None:
        self._ask, self._answers = ask, answers
        self._count = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._ask.write(json.dumps(message).encode() + b"\0")
        self._ask.flush()
        while (answer := self._read()).get("id") != self._count:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url="about:blank")  # so that what is complete is the page and not the one before it
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.run("document.readyState") != "complete":
            pass

    def open_at(self, path: Path, width: int, height: int) -> None:
        """Open a page in a window of this size, and forget what earlier pages logged and asked for."""
        self.look(width, height)
        self.complaints.clear()
        self.requests.clear()
        self.open(path)

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def key(self, key: str, text: str = "", shift: bool = False) -> None:
        params = {"key": key, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **params, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path, whole: bool = False) -> None:
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _read(self) -> dict[str, Any]:
        raw = bytearray()
        while not raw.endswith(b"\0"):
            part = self._answers.read(1)
            assert part, "the browser has gone"
            raw += part
        message = json.loads(raw[:-1])
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(params))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case _:
                pass
        return message


@contextmanager
def browser(home: Path) -> Generator[Browser]:
    """`home` is where it keeps what it keeps."""
    assert PROGRAM
    to_child, ask = os.pipe()
    answers, from_child = os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={home}"]  # fmt: skip
    command = [sys.executable, "-c", START, str(to_child), str(from_child), PROGRAM, *options]
    process = subprocess.Popen(command, pass_fds=(to_child, from_child), stderr=subprocess.DEVNULL)
    os.close(to_child)
    os.close(from_child)
    with os.fdopen(ask, "wb") as out, os.fdopen(answers, "rb") as back:
        try:
            yield Browser(out, back)
        finally:
            process.terminate()
            process.wait()
