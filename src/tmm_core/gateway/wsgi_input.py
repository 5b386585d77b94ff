"""``wsgi.input`` that has been read as far as the DUIS header, and gives every byte again (PEP 3333)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tmm_core.gateway.duis import HeaderReader, known_names

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["WsgiInput"]

_PIECE = 2_048  # bytes read at a time until the header is there; it ends within about 540


class WsgiInput:
    """``wsgi.input``: read as far as its DUIS header, then handed on from its beginning."""

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
