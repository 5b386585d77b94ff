"""Send one request through a middleware, without a server: the same call for ASGI and WSGI."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.messages import OTHER_USER, USER
from tmm_core import Config, Decision, Mechanism
from tmm_core.gateway import asgi, wsgi

both = pytest.mark.parametrize("door", ["asgi", "wsgi"])

QUIET = "Quiet Energy"
FLOODING = "Flooding Energy"
PRIORITY_SRV = "7.4"


def active_mechanism(**changes: Any) -> Mechanism:
    """Return a Mechanism that is active and stays so: USER is inside its allocation, OTHER_USER always over."""
    settings: dict[str, Any] = {
        "allocations": {QUIET: 300.0, FLOODING: 0.0},
        "user_ids": {USER: QUIET, OTHER_USER: FLOODING},
        "priority": [PRIORITY_SRV],
        "costs": {PRIORITY_SRV: 1_000},
        "sharing": "none",
        "hold_s": 3_600,
        **changes,
    }
    mechanism = Mechanism(Config(500, 400, **settings))
    # One priority request of 1,000 units is 2.5 s of the threshold: ten times what activates.
    mechanism.admit(mechanism.user(QUIET), mechanism.srv(PRIORITY_SRV))
    assert mechanism.snapshot().active
    return mechanism


def counts_of(mechanism: Mechanism) -> dict[str, dict[str, int]]:
    """Return how many requests of each User got which decision, without zeros and without the activation."""
    snapshot = mechanism.snapshot()
    by_user = snapshot.counts.sum(axis=1)
    by_user[snapshot.users.index(QUIET), Decision.PRIORITY] -= 1
    return {
        user: {decision.name: int(row[decision]) for decision in Decision if row[decision]}
        for user, row in zip(snapshot.users, by_user, strict=True)
        if row.any()
    }


@dataclass
class Reply:
    """What came back, and what the application got; `received` is None where it was not called."""

    status: int
    headers: dict[str, str]
    body: bytes
    received: bytes | None = None
    parts: list[bytes] = field(default_factory=list)


def post(
    door: str,
    mechanism: Mechanism,
    body: bytes | Sequence[bytes] = b"",
    headers: Iterable[tuple[str, str]] = (),
    *,
    method: str = "POST",
    extra: Mapping[str, Any] | None = None,
    **options: Any,
) -> Reply:
    """Send one request through the middleware of `door`, ``"asgi"`` or ``"wsgi"``."""
    parts = [body] if isinstance(body, bytes) else list(body)
    send = post_asgi if door == "asgi" else post_wsgi
    module = asgi if door == "asgi" else wsgi
    seen: list[bytes] = []
    app = asgi_app(seen) if door == "asgi" else wsgi_app(seen)
    middleware = module.TrafficManagement(app, mechanism, **options)
    reply = send(middleware, parts, headers, method=method, extra=extra)
    if seen:
        reply.received, reply.parts = b"".join(seen), seen
    return reply


def asgi_app(seen: list[bytes]) -> asgi.App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            seen.append(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"from the application"})

    return app


def wsgi_app(seen: list[bytes]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [])
        return [b"from the application"]

    return app


def post_asgi(
    app: Any,
    parts: Sequence[bytes],
    headers: Iterable[tuple[str, str]] = (),
    *,
    method: str = "POST",
    extra: Mapping[str, Any] | None = None,
) -> Reply:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": "/", "headers": raw, **(extra or {})}
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    if not sent:
        return Reply(0, {}, b"")
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    names = [name.decode() for name, _ in sent[0]["headers"]]
    assert names == [name.lower() for name in names]
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], answered, sent[1].get("body", b""))


def post_wsgi(
    app: Any,
    parts: Sequence[bytes],
    headers: Iterable[tuple[str, str]] = (),
    *,
    method: str = "POST",
    extra: Mapping[str, Any] | None = None,
) -> Reply:
    body = b"".join(parts)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": Bounded(parts),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers},
        **(extra or {}),
    }
    started: list[Any] = []
    result = app(environ, lambda status, headers, exc_info=None: started.append((status, headers)))
    answer = b"".join(result)
    status, answered = started[0]
    return Reply(int(status.split()[0]), {name.lower(): value for name, value in answered}, answer)


class Bounded(io.RawIOBase):
    """``wsgi.input`` of a server that hands on the parts of a body as they come, and blocks behind its end."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = [part for part in parts if part]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._parts:
            raise AssertionError("read behind the end of the body: this would block for ever")
        part, rest = self._parts[0][: len(buffer)], self._parts[0][len(buffer) :]
        buffer[: len(part)] = part
        self._parts[:1] = [rest] if rest else []
        return len(part)
