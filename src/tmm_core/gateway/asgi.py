"""ASGI middleware: the Traffic Management Mechanism in front of any ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from tmm_core.errors import DuisError
from tmm_core.gateway.answer import Answer, bad_request
from tmm_core.gateway.desk import Counts, Desk, GatewayEvent, NotDuis, checked_not_duis
from tmm_core.gateway.duis import Header, HeaderReader
from tmm_core.gateway.identify import NOBODY, DuisHeader, Identify, Source, asgi_identify
from tmm_core.mechanism import Mechanism

__all__ = ["TrafficManagement"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TrafficManagement:
    """Throttle Service Requests in front of an ASGI application.

    Parameters
    ----------
    app : ASGI application
    mechanism : Mechanism
    identify : Source or callable
        Who sends a request; see `tmm_core.gateway.identify`. By default the DUIS header says, unsigned.
    methods : collection of str
        Only these are Service Requests; DUIS uses POST. All else passes through, as WebSocket and lifespan do.
    not_duis : {"charge", "pass", "refuse"}
        What becomes of a body without a readable DUIS header, where that is needed: an ordinary request of the
        connection's User or the unknown Users, which the application validates; the same uncharged; or 400.
    rate_limit_fields : bool
        Tell a throttled User its allocation in RateLimit and RateLimit-Policy.
    on_event : callable, optional
        Gets each `GatewayEvent`.

    Notes
    -----
    *Thread-safe.* At most 64 KiB and one message of a body are held before the decision; the application gets
    every byte, in order.
    """

    def __init__(
        self,
        app: App,
        mechanism: Mechanism,
        identify: Source | Identify | None = None,
        *,
        methods: Collection[str] = ("POST",),
        not_duis: NotDuis = "charge",
        rate_limit_fields: bool = False,
        on_event: Callable[[GatewayEvent], object] | None = None,
    ) -> None:
        self._app = app
        self._identify = asgi_identify(identify or DuisHeader())
        self._methods = frozenset(methods)
        self._not_duis = checked_not_duis(not_duis)
        self._desk = Desk(mechanism, rate_limit_fields=rate_limit_fields, on_event=on_event)

    @property
    def counts(self) -> Counts:
        """What this gateway has noticed, `fail_open` above all."""
        return self._desk.counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in self._methods:
            return await self._app(scope, receive, send)
        desk = self._desk
        known = desk.connection(self._identify, scope)
        if known is None:
            return await self._app(scope, receive, send)
        user_id, srv_code = known
        if srv_code is None:
            body = _Body(receive)
            receive = body.receive
            try:
                user_id, srv_code = desk.judge(user_id, await body.read_header())
            except DuisError as error:
                desk.note("not_duis", str(error))
                if self._not_duis == "pass":
                    return await self._app(scope, receive, send)
                if self._not_duis == "refuse":
                    return await _answer(send, 400, bad_request(str(error), _accept(scope)))
                srv_code = ""
            except _GoneError:
                return None
        wait_s = desk.decide(user_id or NOBODY, srv_code)
        if wait_s is None:
            return await self._app(scope, receive, send)
        return await _answer(send, 503, desk.answer(wait_s, user_id or NOBODY, _accept(scope)))


class _GoneError(Exception):
    """The User has gone before its header was complete: there is nothing to decide."""


class _Body:
    """A request's body: read as far as its DUIS header, then handed on from its beginning."""

    __slots__ = ("_first", "_more", "_parts", "_receive", "_rest")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._first: Message | None = None
        self._rest = (
            bytearray()
        )  # what has come after it: parts of a few bytes are held as bytes, not as messages
        self._parts = 0  # their number; the last may be empty and say only that the body has ended
        self._more = True

    async def read_header(self) -> Header:
        reader = HeaderReader()
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise _GoneError
            part = message.get("body", b"")
            self._more = message.get("more_body", False)
            if self._first is None:
                self._first = message
            else:
                self._parts += 1
                self._rest += part
            header = reader.feed(part, last=not self._more)
            if header is not None:
                return header

    async def receive(self) -> Message:
        message, self._first = self._first, None
        if message is None:
            return await self._receive()
        if self._parts:
            body = message.get("body", b"") + bytes(self._rest)
            self._rest.clear()
            return {"type": "http.request", "body": body, "more_body": self._more}
        return message


def _accept(scope: Scope) -> str | None:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    return ",".join(values) if values else None


async def _answer(send: Send, status: int, answer: Answer) -> None:
    headers, body = answer
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
