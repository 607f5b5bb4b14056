"""A real browser, spoken to over pipes in its debugging protocol: no driver and no network needed."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe")


def find_browser() -> str | None:
    """Path of a browser of the Chromium family, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """Context manager over one tab. ``requests``, ``errors``: what the page fetched, and what went wrong in it."""

    def __init__(self, program: str, profile: Path, timeout: float = 20) -> None:
        self._commands_out, self._commands_in = os.pipe()
        self._answers_out, self._answers_in = os.pipe()
        self._until = time.monotonic() + timeout
        self._number = 0
        self._buffer = b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False
        # The protocol wants descriptors 3 and 4, which a shell can give them.
        plumbing = f'exec 3<&{self._commands_out} 4>&{self._answers_in}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", plumbing, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(self._commands_out, self._answers_in), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> Browser:
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        for descriptor in (self._commands_out, self._commands_in, self._answers_out, self._answers_in):
            os.close(descriptor)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands_in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path: Path) -> None:
        """Load a file and wait for its load event."""
        self._loaded = False
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)["result"].get("value")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers_out], [], [], max(0.0, self._until - time.monotonic()))
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._answers_out, 1 << 16)
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(facts["exceptionDetails"]))
        elif event == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.errors.append(facts["entry"]["text"])
        elif event == "Page.loadEventFired":
            self._loaded = True
