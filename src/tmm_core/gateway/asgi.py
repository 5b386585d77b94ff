"""ASGI middleware: the Traffic Management Mechanism in front of any ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from functools import partial
from typing import Any

from tmm_core.errors import DuisError
from tmm_core.gateway.answer import Answer, bad_request
from tmm_core.gateway.desk import Counts, Desk, GatewayEvent, NotDuis, checked_not_duis
from tmm_core.gateway.duis import HeaderReader, known_names
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
        try:
            user_id, srv_code = self._identify(scope)
        except Exception as error:
            if not desk.unidentified(error):
                return await self._app(scope, receive, send)
            user_id, srv_code = NOBODY, None
        if srv_code is None:
            message = await receive()
            if message["type"] != "http.request":
                return None  # the User has gone before there was anything to decide
            try:
                names = known_names(message.get("body", b""))
                if names is None:
                    message, names = await _read(message, receive)
                originator, srv_code = names
                user_id = originator if user_id is None else desk.judge(user_id, originator)
            except _UnreadableError as error:
                if error.message is None:
                    return None
                message = error.message
                desk.note("not_duis", error.fault)
                if self._not_duis == "pass":
                    return await self._app(scope, partial(_again, [message], receive), send)
                if self._not_duis == "refuse":
                    return await _answer(send, 400, bad_request(error.fault, _accept(scope)))
                srv_code = ""
            receive = partial(_again, [message], receive)
        wait_s = desk.decide(user_id or NOBODY, srv_code)
        if wait_s is None:
            return await self._app(scope, receive, send)
        return await _answer(send, 503, desk.answer(wait_s, user_id or NOBODY, _accept(scope)))


class _UnreadableError(Exception):
    """There is no DUIS header in the body; `message` is what has been read of it, None if the User has gone."""

    def __init__(self, message: Message | None, fault: str) -> None:
        super().__init__(fault)
        self.message = message
        self.fault = fault


async def _read(message: Message, receive: Receive) -> tuple[Message, tuple[str, str]]:
    """Read on until the DUIS header is there; return what has been read as one message, and User and SRV."""
    reader = HeaderReader()
    part, more = message.get("body", b""), message.get("more_body", False)
    held = bytearray(part)  # parts of a few bytes are held as bytes, not as messages
    while True:
        try:
            header = reader.feed(part, last=not more)
        except DuisError as error:
            held_message = {"type": "http.request", "body": bytes(held), "more_body": more}
            raise _UnreadableError(held_message, str(error)) from None
        if header is not None:
            held_message = {"type": "http.request", "body": bytes(held), "more_body": more}
            return held_message, (header.user_id, header.srv_code)
        following = await receive()
        if following["type"] != "http.request":
            raise _UnreadableError(None, "the User has gone before its header was complete")
        part, more = following.get("body", b""), following.get("more_body", False)
        held += part


async def _again(first: list[Message], receive: Receive) -> Message:
    """Receive `first`, which is taken out, and then what comes."""
    return first.pop() if first else await receive()


def _accept(scope: Scope) -> str | None:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    return ",".join(values) if values else None


async def _answer(send: Send, status: int, answer: Answer) -> None:
    headers, body = answer
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
