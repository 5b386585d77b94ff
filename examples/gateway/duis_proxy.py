"""A plain DUIS reverse proxy: reads the header, decides, and hands the message on to the DSP, streaming.

    uvicorn --app-dir examples/gateway --port 8002 stub_dsp:app &
    TMM_DSP=http://127.0.0.1:8002 uvicorn --workers 2 --app-dir examples/gateway duis_proxy:app
    curl -i --data-binary @examples/gateway/message.xml http://127.0.0.1:8000/

Who terminates TLS in front of it names the User: ``TMM_SUBJECT_HEADER=X-SSL-Client-S-DN`` takes it from the
subject of the client certificate, and the originator in the message is only compared with it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tmm_core import Mechanism
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import ClientCertificate, DuisHeader

# RFC 9110, 7.6.1: these belong to one connection. Host and framing are the next connection's own.
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "trailer", "transfer-encoding",
    "upgrade", "host", "expect",
    "te",  # codespell:ignore te
}  # fmt: skip
#: The server of this proxy says these itself.
OURS = {"date", "server"}


class Proxy:
    """Hand each request on to one server, and its answer back; nothing is held."""

    def __init__(self, target: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = httpx.AsyncClient(base_url=target, limits=limits, timeout=30)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return None

        async def body() -> AsyncIterator[bytes]:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise httpx.ReadError("the User has gone")
                yield message.get("body", b"")
                more = message.get("more_body", False)

        headers = [
            (name, value) for name, value in scope["headers"] if name.decode("latin-1") not in HOP_BY_HOP
        ]
        url = httpx.URL(path=scope["path"], query=scope["query_string"])
        request = self._client.build_request(scope["method"], url, headers=headers, content=body())
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            text = f"the DSP cannot be reached: {type(error).__name__}\n".encode()
            await send(
                {"type": "http.response.start", "status": 502, "headers": [(b"content-type", b"text/plain")]}
            )
            return await send({"type": "http.response.body", "body": text})
        try:
            # Only the Mechanism says TMM-...: the DSP's own 503 must not look like one of ours.
            kept = [
                (name.lower(), value)
                for name, value in answer.headers.raw
                if name.lower().decode() not in HOP_BY_HOP | OURS and not name.lower().startswith(b"tmm-")
            ]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            async for part in answer.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            return await send({"type": "http.response.body"})
        finally:
            await answer.aclose()

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._client.aclose()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


mechanism = Mechanism.open(os.environ.get("TMM_CONFIG", Path(__file__).with_name("tmm.toml")))
subject = os.environ.get("TMM_SUBJECT_HEADER")
app = TrafficManagement(
    Proxy(os.environ.get("TMM_DSP", "http://127.0.0.1:8002")),
    mechanism,
    ClientCertificate(header=subject) if subject else DuisHeader(),
)
