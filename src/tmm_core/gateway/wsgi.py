"""WSGI middleware: the Traffic Management Mechanism in front of any WSGI application (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tmm_core.errors import DuisError
from tmm_core.gateway.answer import Answer, bad_request
from tmm_core.gateway.desk import Counts, Desk, GatewayEvent, NotDuis, checked_not_duis
from tmm_core.gateway.duis import HeaderReader, known_names
from tmm_core.gateway.identify import NOBODY, DuisHeader, Identify, Source, wsgi_identify
from tmm_core.mechanism import Mechanism

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TrafficManagement"]

_PIECE = 2_048  # bytes read at a time until the header is there; it ends within about 540


class TrafficManagement:
    """Throttle Service Requests in front of a WSGI application.

    Parameters
    ----------
    app : WSGI application
    mechanism : Mechanism
    identify : Source or callable
        Who sends a request; see `tmm_core.gateway.identify`. By default the DUIS header says, unsigned.
    methods : collection of str
        Only these are Service Requests; DUIS uses POST. All else passes through.
    not_duis : {"charge", "pass", "refuse"}
        What becomes of a body without a readable DUIS header, where that is needed: an ordinary request of the
        connection's User or the unknown Users, which the application validates; the same uncharged; or 400.
    rate_limit_fields : bool
        Tell a throttled User its allocation in RateLimit and RateLimit-Policy.
    on_event : callable, optional
        Gets each `GatewayEvent`.

    Notes
    -----
    *Thread-safe.* At most 64 KiB of a body are held before the decision; the application gets every byte.
    """

    def __init__(
        self,
        app: WSGIApplication,
        mechanism: Mechanism,
        identify: Source | Identify | None = None,
        *,
        methods: Collection[str] = ("POST",),
        not_duis: NotDuis = "charge",
        rate_limit_fields: bool = False,
        on_event: Callable[[GatewayEvent], object] | None = None,
    ) -> None:
        self._app = app
        self._identify = wsgi_identify(identify or DuisHeader())
        self._methods = frozenset(methods)
        self._not_duis = checked_not_duis(not_duis)
        self._desk = Desk(mechanism, rate_limit_fields=rate_limit_fields, on_event=on_event)

    @property
    def counts(self) -> Counts:
        """What this gateway has noticed, `fail_open` above all."""
        return self._desk.counts

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in self._methods:
            return self._app(environ, start_response)
        desk = self._desk
        try:
            user_id, srv_code = self._identify(environ)
        except Exception as error:
            if not desk.unidentified(error):
                return self._app(environ, start_response)
            user_id, srv_code = NOBODY, None
        if srv_code is None:
            body = environ["wsgi.input"] = _Body(environ["wsgi.input"], _length(environ))
            try:
                originator, srv_code = body.read_names()
                user_id = originator if user_id is None else desk.judge(user_id, originator)
            except DuisError as error:
                desk.note("not_duis", str(error))
                if self._not_duis == "pass":
                    return self._app(environ, start_response)
                if self._not_duis == "refuse":
                    answer = bad_request(str(error), environ.get("HTTP_ACCEPT"))
                    return _answer(start_response, "400 Bad Request", answer)
                srv_code = ""
        wait_s = desk.decide(user_id or NOBODY, srv_code)
        if wait_s is None:
            return self._app(environ, start_response)
        answer = desk.answer(wait_s, user_id or NOBODY, environ.get("HTTP_ACCEPT"))
        return _answer(start_response, "503 Service Unavailable", answer)


class _Body:
    """``wsgi.input``: read as far as its DUIS header, then handed on from its beginning."""

    __slots__ = ("_held", "_input", "_left")

    def __init__(self, input_: Any, length: int | None) -> None:
        self._input = input_
        self._left = length  # bytes not yet read; None: until the end, which the server knows
        self._held = b""

    def read_names(self) -> tuple[str, str]:
        """Read until User and SRV are known."""
        part = self._take(_PIECE)
        names = known_names(part)
        if names is not None:
            self._held = part
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
        size = size if self._left is None else min(size, self._left)
        parts = bytearray()
        while len(parts) < size and (part := self._input.read(size - len(parts))):
            parts += part
        if self._left is not None:
            self._left -= len(parts)
        return bytes(parts)

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
        limit = (
            size if self._left is None else self._left if size is None else min(self._left, size - len(line))
        )
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


def _answer(start_response: StartResponse, status: str, answer: Answer) -> Iterable[bytes]:
    headers, body = answer
    start_response(status, headers)
    return [body]
