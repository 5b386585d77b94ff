"""Start real servers on loopback and end them: every process is ended by the fixture that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gateway.drive import Reply

if sys.platform == "win32":
    pytest.skip("servers are ended by their process group: not on Windows", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "gateway"
STARTED_WITHIN_S = 30.0


def need(*modules: str) -> None:
    """Skip the test, saying why, where an optional package is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    http: bool = True,
    cwd: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; it is ready when it answers on `port`."""
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})}
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environ, start_new_session=True, cwd=cwd
        )
    try:
        wait_for(port, process, log, http=http)
        yield process
    finally:
        end(process)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, *, http: bool) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        # A connection may be taken before there is a worker, and never be answered: ask for an answer.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            if not http:
                return
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if connection.recv(1):
                return
        time.sleep(0.02)
    pytest.fail(
        f"{process.args} takes no connections on port {port}:\n{log.read_text(errors='replace')[-3_000:]}"
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all it has started (it leads a session of its own)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def post(port: int, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/") -> Reply:
    """Send one POST on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body, dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    fields: dict[str, str] = {}
    for name, value in answer.getheaders():
        fields[name.lower()] = f"{fields[name.lower()]}, {value}" if name.lower() in fields else value
    return Reply(answer.status, fields, text)


def post_many(port: int, bodies: Sequence[bytes], *, at_once: int = 8, **options: Any) -> list[Reply]:
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda body: post(port, body, **options), bodies))


class in_thread:  # noqa: N801 - used as a function
    """Serve an ASGI application by uvicorn in a thread of this process: the test sees its Mechanism."""

    def __init__(self, app: Any, **options: Any) -> None:
        import uvicorn

        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        options = {"log_level": "error", "lifespan": "off", "backlog": 2_048, **options}
        self.server = uvicorn.Server(uvicorn.Config(app, **options))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> int:
        self.thread.start()
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.port

    def __exit__(self, *error: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()
