"""Starlette behind the Mechanism, two workers sharing one block.

    uvicorn --workers 2 --app-dir examples/gateway starlette_app:app
    curl -i --data-binary @examples/gateway/message.xml http://127.0.0.1:8000/

FastAPI is the same: ``app.add_middleware(TrafficManagement, mechanism=mechanism)``.
"""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tmm_core import Mechanism
from tmm_core.gateway.asgi import TrafficManagement

mechanism = Mechanism.open(os.environ.get("TMM_CONFIG", Path(__file__).with_name("tmm.toml")))


async def service(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse(f"processed {len(body)} bytes in process {os.getpid()}\n")


app = Starlette(
    routes=[Route("/{path:path}", service, methods=["GET", "POST"])],
    middleware=[Middleware(TrafficManagement, mechanism=mechanism)],
)
