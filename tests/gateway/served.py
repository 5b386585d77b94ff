"""What the servers of the tests serve: an echo behind each middleware, with an active Mechanism."""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.drive import active_mechanism
from tmm_core.gateway import asgi, wsgi
from tmm_core.gateway.identify import HttpHeader

mechanism = active_mechanism()


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": digest.hexdigest().encode()})


def _wsgi_echo(environ: Any, start_response: Any) -> list[bytes]:
    digest = hashlib.sha256()
    left = -1 if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
    while left and (part := environ["wsgi.input"].read(4_096 if left < 0 else min(left, 4_096))):
        digest.update(part)
        left -= len(part) if left > 0 else 0
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [digest.hexdigest().encode()]


app = asgi.TrafficManagement(_echo, mechanism, HttpHeader(fall_back=True))
wsgi_app = wsgi.TrafficManagement(_wsgi_echo, mechanism, HttpHeader(fall_back=True))
