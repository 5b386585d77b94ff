"""The decision alone, for a proxy that asks before it hands a request on: nginx.conf shows both ways.

    uvicorn --workers 2 --app-dir examples/gateway --port 8001 decision_app:app

``/auth``   for nginx ``auth_request``, whose question has no body: User and SRV come in headers that nginx sets.
            204 admits; 403 means throttled, since ``auth_request`` knows no other refusal.
``/duis/``  for ``X-Accel-Redirect``: nginx sends the message itself, the DUIS header is read, and nginx is told
            to hand the message on to the DSP (200), or gets the 503.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tmm_core import Mechanism
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import HttpHeader

mechanism = Mechanism.open(os.environ.get("TMM_CONFIG", Path(__file__).with_name("tmm.toml")))


async def admitted(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    status, headers = (204, []) if scope["path"] == "/auth" else (200, [(b"x-accel-redirect", b"@dsp")])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body"})


by_headers = TrafficManagement(admitted, mechanism, HttpHeader(), methods=("GET",))
by_message = TrafficManagement(admitted, mechanism, HttpHeader(srv=None, fall_back=True))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["path"] != "/auth":
        return await by_message(scope, receive, send)

    async def send_as_403(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] == 503:
            message["status"] = 403
        await send(message)

    return await by_headers(scope, receive, send_as_403)
