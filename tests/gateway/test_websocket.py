"""WebSocket and lifespan pass through the ASGI middleware, under uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.drive import active_mechanism, counts_of
from gateway.messages import OTHER_USER
from gateway.servers import in_thread, need, post
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import HttpHeader

pytestmark = pytest.mark.timeout(60)


class Client:
    """A WebSocket client on one connection; it waits for each event."""

    def __init__(self, port: int, headers: list[tuple[bytes, bytes]]) -> None:
        from wsproto import ConnectionType, WSConnection
        from wsproto.events import Request

        self._connection = WSConnection(ConnectionType.CLIENT)
        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        self._events = self._received()
        self.send(Request(host="127.0.0.1", target="/", extra_headers=headers))

    def send(self, event: Any) -> None:
        self._socket.sendall(self._connection.send(event))

    def event(self) -> Any:
        return next(self._events)

    def _received(self) -> Iterator[Any]:
        while True:
            data = self._socket.recv(65_536)
            self._connection.receive_data(data or None)
            yield from self._connection.events()

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("identify", [HttpHeader(), None], ids=["by header", "by message"])
def test_a_websocket_of_a_user_over_its_allocation_passes_through(identify: HttpHeader | None) -> None:
    need("uvicorn", "wsproto")
    from wsproto.events import AcceptConnection, CloseConnection, TextMessage

    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "lifespan":
            for moment in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{moment}"
                seen.append(moment)
                await send({"type": f"lifespan.{moment}.complete"})
            return
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        seen.append(message["type"])

    mechanism = active_mechanism()
    middleware = TrafficManagement(app, mechanism, identify)
    headers = [(b"TMM-User", OTHER_USER.encode()), (b"TMM-SRV", b"4.1.1")]
    with in_thread(middleware, ws="wsproto", lifespan="on") as port:
        client = Client(port, headers)
        try:
            assert isinstance(client.event(), AcceptConnection)
            for text in ("first", "second"):
                client.send(TextMessage(data=text))
                answer = client.event()
                assert isinstance(answer, TextMessage)
                assert answer.data == text.upper()
            client.send(CloseConnection(code=1000))
            assert isinstance(client.event(), CloseConnection)
        finally:
            client.close()
        assert counts_of(mechanism) == {}
        # The same User's request over HTTP is throttled: it is the protocol that passes.
        if identify is not None:
            names = {name.decode(): value.decode() for name, value in headers}
            assert post(port, b"", names).status == 503
    assert seen == ["lifespan", "startup", "websocket", "websocket.disconnect", "shutdown"]
    assert middleware.counts.fail_open == 0
