"""What the benchmark serves: the cheapest possible answer alone, behind a middleware that only passes on, and behind
ours.

The path of a request chooses the side, so all sides run in one process: same memory, same hash seed, same heap.
Choosing takes some 0.1 us, on every side. `by_header` answers without reading; `by_message` reads the whole body
first, as an application that gets a message does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tmm_core import Config, Mechanism
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import HttpHeader, Source

USER = "90-B3-D5-1F-30-01-00-00"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}
WITHOUT, PASS_ONLY, WITH = "/without", "/pass-only", "/with"

App = Callable[[Any, Any, Any], Awaitable[None]]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(BODY)


async def reading(scope: Any, receive: Any, send: Any) -> None:
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send(START)
    await send(BODY)


class PassOnly:
    """The least that a middleware written as usual costs."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


# One User inside its allocation: every request is decided, charged and counted, and admitted.
mechanism = Mechanism(
    Config(1_000_000, 900_000, allocations={"Northern Energy": 800_000.0}, user_ids={USER: "Northern Energy"})
)


def sides(app: App, identify: Source | None = None) -> App:
    """Return an application with all three sides."""
    ours = TrafficManagement(app, mechanism, identify)
    by_path = {"/": app, WITHOUT: app, PASS_ONLY: PassOnly(app), WITH: ours}

    def chosen(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        return by_path[scope["path"]](scope, receive, send)

    return chosen


by_header = sides(bare, HttpHeader())
by_message = sides(reading)
