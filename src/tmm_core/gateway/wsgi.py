"""WSGI middleware: the Traffic Management Mechanism in front of any WSGI application (PEP 3333)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tmm_core.errors import DuisError
from tmm_core.gateway.answer import Answer
from tmm_core.gateway.desk import Middleware
from tmm_core.gateway.duis import HeaderReader, known_names
from tmm_core.gateway.identify import environ_name

__all__ = ["TrafficManagement", "WsgiInput"]

_STATUS = {400: "400 Bad Request", 503: "503 Service Unavailable"}
_PIECE = 2_048  # bytes read at a time until the header is there; it ends within about 540


class TrafficManagement(Middleware[WSGIApplication]):
    """Throttle Service Requests in front of a WSGI application; its parameters are those of `Middleware`.

    Notes
    -----
    *Thread-safe.* At most 64 KiB of a body are held before the decision; the application gets every byte.
    """

    _by = "for_wsgi"
    _name = staticmethod(environ_name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # The engine knows the usual request by itself; to any other it says None, and has done nothing.
        verdict = self._usual.ask_environ(environ)
        if verdict is False:
            body = environ["wsgi.input"] = WsgiInput(environ)
            verdict = self._usual.ask_body(body.begin())
        if verdict is True:
            return self._app(environ, start_response)
        if verdict:
            return _answer(start_response, 503, self._desk.answer(*verdict, environ.get("HTTP_ACCEPT")))
        return self._look(environ, start_response)

    def _look(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Decide on any request, with every question asked."""
        if environ["REQUEST_METHOD"] not in self._methods:
            return self._app(environ, start_response)
        sender = self._sender(environ)
        if sender is None:
            return self._app(environ, start_response)
        user_id, said = sender
        if said is None:
            body = environ["wsgi.input"]
            if type(body) is not WsgiInput:
                body = environ["wsgi.input"] = WsgiInput(environ)
            try:
                said = body.read_names()
            except DuisError as error:
                said = error
        refused = self._refused(user_id, said, lambda: environ.get("HTTP_ACCEPT"))
        if refused is None:
            return self._app(environ, start_response)
        return _answer(start_response, *refused)


def _answer(start_response: StartResponse, status: int, answer: Answer) -> Iterable[bytes]:
    headers, body = answer
    start_response(_STATUS[status], headers)
    return [body]


class WsgiInput:
    """``wsgi.input``: read as far as its DUIS header, then handed on from its beginning, with every byte."""

    __slots__ = ("_held", "_input", "_left")

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._input: Any = environ["wsgi.input"]
        self._left = _length(environ)  # bytes not yet read; None: until the end, which the server knows
        self._held = b""

    def begin(self) -> bytes:
        """Return the first part, which may have the header."""
        self._held = self._held or self._take(_PIECE)
        return self._held

    def read_names(self) -> tuple[str, str]:
        """Read until User and SRV are known."""
        part = self.begin()
        names = known_names(part)
        if names is not None:
            return names
        reader, held = HeaderReader(), bytearray()
        try:
            while True:
                held += part
                header = reader.feed(part, last=len(part) < _PIECE)
                if header is not None:
                    return header.user_id, header.srv_code
                part = self._take(_PIECE)
        finally:
            self._held = bytes(held)

    def _take(self, size: int) -> bytes:
        """Read `size` bytes, less only at the end: a server may block on more than there is."""
        if self._left is not None:
            size = min(size, self._left)
        taken: bytes = self._input.read(size) if size else b""
        if len(taken) < size:
            parts = bytearray(taken)
            while len(parts) < size and (part := self._input.read(size - len(parts))):
                parts += part
            taken = bytes(parts)
        if self._left is not None:
            self._left -= len(taken)
        return taken

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            rest = self._input.read() if self._left is None else self._take(self._left)
            held, self._held = self._held, b""
            return held + rest if held else rest
        if self._held:
            held, self._held = self._held[:size], self._held[size:]
            return held if len(held) == size else held + self._take(size - len(held))
        return self._take(size)

    def readline(self, size: int | None = -1) -> bytes:
        size = None if size is None or size < 0 else size
        end = self._held.find(b"\n") + 1 or len(self._held)
        line = self.read(end if size is None else min(end, size)) if self._held else b""
        if line.endswith(b"\n") or (size is not None and len(line) >= size):
            return line
        wanted = None if size is None else size - len(line)
        limit = wanted if self._left is None else self._left if wanted is None else min(self._left, wanted)
        rest = self._input.readline() if limit is None else self._input.readline(limit) if limit else b""
        if self._left is not None:
            self._left -= len(rest)
        return line + rest

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        lines, size = [], 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


def _length(environ: WSGIEnvironment) -> int | None:
    if environ.get("wsgi.input_terminated"):
        return None
    try:
        return max(0, int(environ.get("CONTENT_LENGTH") or 0))
    except ValueError:
        return 0
