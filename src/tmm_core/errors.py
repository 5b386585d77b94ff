"""Every exception class of the package.

Being throttled is an answer (:class:`tmm_core.Decision`), never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ConfigError", "DuisError", "EventLogError", "MemoryLayoutError", "Mistake", "TMMError"]


class TMMError(Exception):
    """Base class of every error this package raises on its own account."""


class Mistake:
    """One mistake of a configuration: where it is, what was found, what was expected.

    ``str(mistake)`` is ``file:line:column: message``, as far as each is known; line and column are from 1.
    """

    __slots__ = ("column", "field", "file", "line", "message")

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        field: str | None = None,
    ) -> None:
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.field = field

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message

    def __repr__(self) -> str:
        return f"Mistake({str(self)!r}, field={self.field!r})"


class ConfigError(TMMError, ValueError):
    """The configuration is wrong; nothing of it was applied.

    Attributes
    ----------
    mistakes : tuple of Mistake
        Every mistake found, in the order of the files.
    file, line, column, field
        Those of the first mistake.
    """

    def __init__(self, mistakes: str | Mistake | Sequence[Mistake]) -> None:
        if isinstance(mistakes, str):
            mistakes = (Mistake(mistakes),)
        elif isinstance(mistakes, Mistake):
            mistakes = (mistakes,)
        self.mistakes: tuple[Mistake, ...] = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))

    @property
    def file(self) -> str | None:
        return self.mistakes[0].file if self.mistakes else None

    @property
    def line(self) -> int | None:
        return self.mistakes[0].line if self.mistakes else None

    @property
    def column(self) -> int | None:
        return self.mistakes[0].column if self.mistakes else None

    @property
    def field(self) -> str | None:
        return self.mistakes[0].field if self.mistakes else None


class MemoryLayoutError(TMMError):
    """The memory given is not a block this version can use; says what was found and expected."""


class EventLogError(TMMError):
    """The event log cannot be opened, read or written."""


class DuisError(TMMError, ValueError):
    """The message has no readable DUIS header.

    Attributes
    ----------
    offset : int
        Byte offset in the message at which reading stopped.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"byte {offset}: {message}")
        self._message, self.offset = message, offset

    def __reduce__(self) -> tuple[object, ...]:  # else a copy in another process lacks the offset
        return type(self), (self._message, self.offset)
