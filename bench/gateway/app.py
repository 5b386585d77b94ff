"""What the benchmark serves: the cheapest possible answer, alone and behind the middleware.

``bare`` answers without reading; ``reading`` reads the whole body first, as an application that gets a message does.
"""

from __future__ import annotations

from typing import Any

from tmm_core import Config, Mechanism
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import HttpHeader

USER = "90-B3-D5-1F-30-01-00-00"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send(START)
    await send(BODY)


async def reading(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send(START)
    await send(BODY)


# One User inside its allocation: every request is decided, charged and counted, and admitted.
mechanism = Mechanism(
    Config(1_000_000, 900_000, allocations={"Northern Energy": 800_000.0}, user_ids={USER: "Northern Energy"})
)
by_header = TrafficManagement(bare, mechanism, HttpHeader())
by_message = TrafficManagement(reading, mechanism)
