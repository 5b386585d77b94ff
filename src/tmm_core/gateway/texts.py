"""Texts of short byte strings that come again and again: made once, and with their hash ready."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Texts", "environ_text", "header_text"]

_MOST = 4_096
_LONGEST = 64  # bytes; an EUI-64 has 23


def header_text(value: bytes) -> str:
    """Return the text of an HTTP header: UTF-8, as a proxy writes a name; what is not UTF-8 is Latin-1.

    Examples
    --------
    >>> header_text("Énergie".encode()), header_text("Énergie".encode("latin-1"))
    ('Énergie', 'Énergie')
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def environ_text(value: str) -> str:
    """Return the text of an HTTP header in a WSGI environ, where each character stands for a byte (PEP 3333)."""
    if value.isascii():
        return value
    try:
        return header_text(value.encode("latin-1"))
    except UnicodeEncodeError:  # not of this kind: the server has decoded it
        return value


class Texts(dict[bytes, str]):
    """The text of a byte string, by subscription; of short ones the text is kept. *Thread-safe.*

    Parameters
    ----------
    make : callable
        Takes bytes, returns their text; called for what is not kept.

    Notes
    -----
    At most 4,096 texts of at most 64 bytes are kept; one more, and all are forgotten.

    Examples
    --------
    >>> texts = Texts(lambda value: value.decode("latin-1"))
    >>> texts[b"4.1.1"] is texts[b"4.1.1"]
    True
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[bytes], str]) -> None:
        self._make = make

    def __missing__(self, value: bytes) -> str:
        text = self._make(value)
        if len(value) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[value] = text
        return text
