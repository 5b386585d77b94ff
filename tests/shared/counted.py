"""The application the server tests start: one decision for every POST, at a time that stands still."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from tmm_core import Config, Mechanism

#: The clock of all processes stands still here.
FROZEN = 10**12
#: Units per second, and a burst of one second: 101 Service Requests from rest.
ALLOCATION = 100
LIMIT = 101


def open_mechanism(path: str) -> Mechanism:
    """Open what all workers share. No spare capacity is shared, so the limit is the allocation."""
    config = Config(
        20_000, 10_000, allocations={"Northern Energy": ALLOCATION, "Hydra Ltd": 500.0}, sharing="none",
        activation_s=0.01, shared=path,
    )  # fmt: skip
    return Mechanism.open(config, start=FROZEN)


def decide() -> tuple[int, bytes]:
    decision = mechanism.admit_at(mechanism.user("Northern Energy"), mechanism.srv("4.1.1"), FROZEN)
    return (200 if decision else 503), str(os.getpid()).encode()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    status, body = decide() if environ["REQUEST_METHOD"] == "POST" else (204, b"")
    start_response(f"{status} -", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")  # a server may ask for a lifespan, and goes on without
    while (await receive()).get("more_body"):
        pass
    status, body = decide() if scope["method"] == "POST" else (204, b"")
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
    )
    await send({"type": "http.response.body", "body": body})


if "TMM_TEST_BLOCK" in os.environ:
    mechanism = open_mechanism(os.environ["TMM_TEST_BLOCK"])
