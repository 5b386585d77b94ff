"""Closed loop over real HTTP: Users that honour Retry-After come back spread at their own rate, and are served."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.drive import active_mechanism
from gateway.messages import OTHER_USER, compose
from gateway.servers import in_thread, need
from tmm_core.gateway.asgi import TrafficManagement

REQUESTS = 60
RATE = 40.0  # units per second: the 60 take a second and a half


@pytest.mark.timeout(60)
@pytest.mark.parametrize("by_ms", [True, False], ids=["TMM-Retry-After-Ms", "Retry-After"])
def test_users_refused_together_come_back_spread_and_each_is_served_within_two_attempts(by_ms: bool) -> None:
    """Whoever honours only the whole seconds of Retry-After comes a little late, and never more often."""
    need("uvicorn", "httpx")
    import httpx

    mechanism = active_mechanism(
        allocations={"Quiet Energy": 300.0, "Flooding Energy": RATE}, burst_s=0.1, max_retry_after_s=60
    )
    attempts = done = 0
    served: list[float] = []  # when the application was called: at once after the decision
    waits: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(time.monotonic())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def lone(client: httpx.AsyncClient, counter: int) -> None:
        nonlocal attempts, done
        message = compose(user=OTHER_USER, counter=counter)
        while True:
            attempts += 1
            answer = await client.post("/", content=message)
            if answer.status_code == 200:
                done += 1
                return
            assert answer.status_code == 503
            wait_ms = int(answer.headers["TMM-Retry-After-Ms"])
            waits.append(wait_ms)
            await asyncio.sleep(wait_ms / 1_000 if by_ms else int(answer.headers["Retry-After"]))

    async def together(port: int) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30
        ) as client:
            await asyncio.gather(*(lone(client, number) for number in range(REQUESTS)))

    with in_thread(TrafficManagement(app, mechanism)) as port:
        start = time.monotonic()
        asyncio.run(together(port))
    print(f"{attempts / REQUESTS:.2f} attempts per request, served within {served[-1] - start:.2f} s")

    # Everybody is served, and nobody asks for ever: without slots each of the 60 would get the same instant, and
    # come back with all the others: some 30 attempts per request.
    assert done == len(served) == REQUESTS
    assert attempts <= 2.2 * REQUESTS
    # The slots of the first round are one interval of 25 ms apart: all different, none twice.
    first = sorted(waits[:50])
    assert len({wait // 5 for wait in first}) > 40
    # Spread at the User's own rate, never faster: of any 10 in a row the last came 9 intervals after the
    # first, less the burst of 0.1 s.
    for early, late in zip(served, served[9:], strict=False):
        assert late - early >= 9 / RATE - 0.1 - 0.05  # 50 ms: what may pass between decision and call
    assert served[-1] - served[0] >= (REQUESTS - 5) / RATE - 0.05
