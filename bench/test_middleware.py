"""What the middleware adds to one request, without a server: the application called alone and behind it, in turn.

The time is that of the whole call, with an application that sends one empty answer and, for messages, reads the
body first. The Users stay inside their allocations: every request is identified, decided, counted and admitted. The
requests differ as traffic does: sixteen Users, and of each another SRV and target.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

from measure import side_by_side

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gateway.messages import compose

from tmm_core import Config, Mechanism
from tmm_core.gateway import asgi
from tmm_core.gateway.identify import HttpHeader

DIFFERENT = 32  # requests; a server has just received their bytes, so they must not come from far memory
TIMES = 10
ROUNDS = 150
N = DIFFERENT * TIMES
SRVS = ("4.1.1", "4.6.1", "2.2", "6.13", "8.2", "4.8.1", "1.5", "6.15.1")
USERS = {f"90-B3-D5-1F-30-{number:02X}-00-00": f"User {number}" for number in range(16)}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send(None)


async def reading(scope: Any, receive: Any, send: Any) -> None:
    more = True
    while more:
        more = (await receive())["more_body"]
    await send(None)


async def send(message: Any) -> None:
    pass


class PassingOn:
    """The least a middleware can be."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def asked(app: Any, requests: list[tuple[Any, Any]]) -> Callable[[], None]:
    """Return a function that sends all requests, again and again, through an application that never waits."""

    def run() -> None:
        for _ in repeat(None, TIMES):
            for scope, receive in requests:
                try:
                    app(scope, receive, send).send(None)
                except StopIteration:
                    continue
                raise AssertionError("the application waits")

    return run


def request(user: str, srv: str, number: int, *, message: bool) -> tuple[Any, Any]:
    """Return scope and `receive` of one request, as from a server: of its own bytes, not of shared ones."""
    body = compose(
        srv, user=user, target=f"00-DB-12-34-56-78-90-{number % 256:02X}", counter=number, size=5_000
    )
    event = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> Any:
        return event

    named = [] if message else [(b"TMM-User", user.encode()), (b"TMM-SRV", srv.encode())]
    headers = [(b"Host", b"127.0.0.1:8000"), (b"Content-Length", b"5000"), (b"Accept", b"*/*"), *named]
    raw = [(name.lower(), bytes(bytearray(value))) for name, value in headers]
    return {"type": "http", "method": "POST", "path": "/", "headers": raw}, receive


def measured(benchmark: Any, app: Any, identify: HttpHeader | None) -> dict[str, float]:
    config = Config(
        1e9, 9e8, allocations=dict.fromkeys(USERS.values(), 1e6), user_ids=USERS, burst_s=600, max_users=100
    )
    with Mechanism(config) as mechanism:
        middleware = asgi.TrafficManagement(app, mechanism, identify)
        kinds = zip(cycle(USERS), cycle(SRVS), range(DIFFERENT))
        requests = [request(user, srv, number, message=identify is None) for user, srv, number in kinds]
        sides = {"alone": app, "passing on": PassingOn(app), "ours": middleware}
        took = side_by_side({name: (asked(side, requests), N) for name, side in sides.items()}, rounds=ROUNDS)
        benchmark.pedantic(asked(middleware, requests), rounds=5, warmup_rounds=1)
        counted = int(mechanism.snapshot().counts[1:].sum())
        assert counted == N * (ROUNDS + 7), "every request was decided, and charged to a known User"
        assert middleware.counts.fail_open == middleware.counts.not_duis == 0
    return took


def test_quick_middleware_by_header(judge: Callable[..., None], benchmark: Any) -> None:
    """User and SRV in HTTP headers: the body is not read."""
    took = measured(benchmark, bare, HttpHeader())
    compared("middleware_by_header", "ASGI middleware, HTTP headers", judge, took)


def test_quick_middleware_by_message(judge: Callable[..., None], benchmark: Any) -> None:
    """User and SRV in a message of 5 kB whose kind has been read before."""
    took = measured(benchmark, reading, None)
    compared("middleware_by_message", "ASGI middleware, DUIS message of 5 kB", judge, took)


def compared(name: str, what: str, judge: Callable[..., None], took: dict[str, float]) -> None:
    ours, least = took["ours"] - took["alone"], took["passing on"] - took["alone"]
    judge(
        name, what, ours / least, f"adds {ours:.0f} ns",
        f"{ours / least:.1f} times the {least:.0f} ns of a middleware that only passes on",
    )  # fmt: skip
