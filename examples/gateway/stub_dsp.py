"""A stand-in for the DSP: says how many bytes of which path it got.

uvicorn --app-dir examples/gateway --port 8002 stub_dsp:app
"""

from __future__ import annotations

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    # A path that ends with /503 plays the infrastructure's own 503, which is not the Mechanism's, even if it says so.
    status = 503 if scope["path"].endswith("/503") else 200
    false = [(b"tmm-decision", b"THROTTLED"), (b"tmm-retry-after-ms", b"1")] if status == 503 else []
    text = f"the DSP got {scope['method']} {scope['path']} with {size} bytes\n".encode()
    headers = [(b"content-type", b"text/plain"), *false]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
