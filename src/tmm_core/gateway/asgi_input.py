"""An ASGI request's body, read as far as the DUIS header and handed on with every byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tmm_core.errors import DuisError
from tmm_core.gateway.duis import HeaderReader, known_names

__all__ = ["Message", "Receive", "Scope", "again", "read_names"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


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
