"""Chromium, driven over a pipe by its own protocol (CDP): no driver, no port, no package."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--remote-debugging-pipe",
)  # fmt: skip


def axe() -> str:
    """Return axe-core's script, or skip: it is not part of this repository.

    That of the package axe-core-python; or a newer one: ``npm pack axe-core`` and TMM_TEST_AXE=/path/to/axe.min.js.
    """
    package = find_spec("axe_core_python")
    places = [
        Path(folder) / "axe.min.js" for folder in (package and package.submodule_search_locations) or ()
    ]
    if "TMM_TEST_AXE" in os.environ:
        places = [Path(os.environ["TMM_TEST_AXE"])]
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    pytest.skip("axe-core is not installed: axe-core-python from PyPI, or TMM_TEST_AXE=/path/to/axe.min.js")


class Browser:
    """One page in a browser of its own; it is ended, with all its processes, on leaving."""

    def __init__(self, folder: Path, width: int, height: int = 900) -> None:
        import fcntl  # there is none on Windows, where these tests are skipped

        assert CHROMIUM is not None
        low_in, self._to = os.pipe()
        self._from, low_out = os.pipe()
        # Out of the way of 3 and 4, which the shell is going to use.
        theirs_in, theirs_out = (fcntl.fcntl(low, fcntl.F_DUPFD, 10) for low in (low_in, low_out))
        command = [
            CHROMIUM,
            *_FLAGS,
            f"--user-data-dir={folder}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        # The browser reads from descriptor 3 and writes to 4. The shell moves them there: a preexec_fn is not
        # safe beside threads.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "browser", *command],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for end in (low_in, low_out, theirs_in, theirs_out):
            os.close(end)
        self._read = b""
        self._number = 0
        self._session: str | None = None
        self.messages: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 30
        while True:
            found = self._next(until)
            if found.get("id") == self._number:
                assert "error" not in found, found["error"]
                result: dict[str, Any] = found["result"]
                return result
            self.messages.append(found)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(until - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._read += part
        text, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def open(self, address: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=address)

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, timeout_s: float = 20) -> Any:
        """Wait until an expression is true; returns its value."""
        until = time.monotonic() + timeout_s
        while True:
            value = self.ask(expression)
            if value:
                return value
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.05)

    @property
    def complaints(self) -> list[str]:
        """What the browser complained of: errors, exceptions, breaches of the page's policy."""
        found = []
        for message in self.messages:
            if message.get("method") == "Runtime.exceptionThrown":
                found.append(str(message["params"]["exceptionDetails"]))
            if message.get("method") == "Log.entryAdded":
                found.append(message["params"]["entry"]["text"])
        return found

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)
        os.close(self._from)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            # Its session is its own: no other process is in it.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
