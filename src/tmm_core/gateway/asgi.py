"""ASGI middleware: the Traffic Management Mechanism in front of any ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from types import MethodType
from typing import Any

from tmm_core.engines import native
from tmm_core.errors import DuisError
from tmm_core.gateway.answer import Answer
from tmm_core.gateway.desk import Middleware
from tmm_core.gateway.duis import HeaderReader, known_names
from tmm_core.gateway.identify import scope_name

__all__ = ["TrafficManagement"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TrafficManagement(Middleware[App], native.Entrance):
    """Throttle Service Requests in front of an ASGI application; its parameters are those of `Middleware`.

    Notes
    -----
    *Thread-safe.* WebSocket and lifespan pass through. At most 64 KiB and one message of a body are held before
    the decision; the application gets every byte, in order.
    """

    _by = "for_asgi"
    _name = staticmethod(scope_name)

    def _open(self) -> None:
        # Calls go to the type's `__call__`, which is the engine's and no coroutine function. Servers that ask whether
        # this is one look at the attribute: without it they take an application for one of ASGI 2, or of WSGI.
        self.__dict__["__call__"] = self._called
        self._by_message = _by_message(self._app, self._usual.ask_message, self._unusual)

    async def _called(self, scope: Scope, receive: Receive, send: Send) -> None:
        await type(self).__call__(self, scope, receive, send)

    async def _unusual(
        self, verdict: tuple[float, str] | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Go on where the engine cannot let a request in; None: it knows nothing, and has done nothing."""
        if verdict:
            return await _answer(send, 503, self._desk.answer(*verdict, _accept(scope)))
        return await self._look(scope, receive, send)

    async def _look(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide on any request, with every question asked."""
        if scope["type"] != "http" or scope["method"] not in self._methods:
            return await self._app(scope, receive, send)
        sender = self._sender(scope)
        if sender is None:
            return await self._app(scope, receive, send)
        user_id, said = sender
        if said is None:
            message, said = await read_names(receive)
            if message is None:
                return None  # the User has gone before there was anything to decide
            receive = MethodType(again, [receive, message])
        refused = self._refused(user_id, said, lambda: _accept(scope))
        if refused is None:
            return await self._app(scope, receive, send)
        return await _answer(send, *refused)


def _by_message(app: App, ask: Callable[[Message], Any], unusual: Callable[..., Awaitable[None]]) -> App:
    """Return what decides by the first part of a body where that is enough: this is the way of most messages."""

    async def by_message(scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Any] = [receive, await receive()]
        verdict = ask(held[1])
        replay = MethodType(again, held)
        if verdict is True:
            return await app(scope, replay, send)
        return await unusual(verdict, scope, replay, send)

    return by_message


def _accept(scope: Scope) -> str | None:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    return ",".join(values) if values else None


async def _answer(send: Send, status: int, answer: Answer) -> None:
    headers, body = answer
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def read_names(receive: Receive) -> tuple[Message | None, tuple[str, str] | DuisError]:
    """Read until the DUIS header is there; return what has been read as one message, None if the User has gone.

    And what it says: User and SRV, or why there is no header.
    """
    held, reader = bytearray(), HeaderReader()  # parts of a few bytes are held as bytes, not as messages
    while (message := await receive())["type"] == "http.request":
        part, more = message.get("body", b""), message.get("more_body", False)
        if not held and (names := known_names(part)) is not None:
            return message, names
        held += part
        try:
            header = reader.feed(part, last=not more)
        except DuisError as error:
            return {"type": "http.request", "body": bytes(held), "more_body": more}, error
        if header is not None:
            message = {"type": "http.request", "body": bytes(held), "more_body": more}
            return message, (header.user_id, header.srv_code)
    return None, DuisError("the User has gone before its header was complete", len(held))


async def again(held: list[Any]) -> Message:
    """Receive the message held behind `receive`, which is taken out, and then what comes."""
    message: Message = held.pop() if len(held) > 1 else await held[0]()
    return message
