"""Where each value of a TOML file stands, so that a mistake can name its line and column.

``tomllib`` tells values and not places. The scanner here only runs over text that ``tomllib`` has accepted,
so it need not judge: it follows keys, strings and brackets.
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError, Mistake

__all__ = ["LARGEST_FILE", "Places", "load_toml", "read_file", "read_toml"]

LARGEST_FILE = 1 << 20
"""Bytes; no configuration written by people comes near."""

_Path = tuple[str | int, ...]
Places = dict[_Path, tuple[int, int]]
"""Line and column, both from 1, of the value at a path of keys and array indices."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:"((?:\\.|[^"\\])*)"|'([^']*)'|([A-Za-z0-9_-]+))[ \t]*""")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'", re.DOTALL
)
_SYNTAX = re.compile(r"^(?P<what>.*?) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


def load_toml(path: str | Path) -> tuple[dict[str, Any], Places]:
    """Read a TOML file; decimal numbers come as `Decimal`, as they are written.

    Raises
    ------
    ConfigError
        The file cannot be read, is too large, is not UTF-8 or is not TOML; with line and column.
    """
    return read_toml(read_file(path, LARGEST_FILE), str(path))


def read_file(path: str | Path, largest: int) -> bytes:
    """Return the bytes of a file, at most one more than `largest`.

    Raises
    ------
    ConfigError
        The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(largest + 1)
    except OSError as error:
        raise ConfigError(Mistake(f"cannot be read: {error.strerror or error}", file=str(path))) from None


def read_toml(data: bytes, file: str) -> tuple[dict[str, Any], Places]:
    """Read the bytes of a TOML file; see `load_toml`."""
    if len(data) > LARGEST_FILE:
        raise ConfigError(Mistake(f"more than {LARGEST_FILE >> 20} MiB, expected a TOML file", file=file))
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(Mistake("encoded in UTF-16, expected UTF-8", file=file, line=1, column=1))
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        fault = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise ConfigError(Mistake(fault, file=file, line=line, column=column)) from None
    text = text.replace("\r\n", "\n")
    try:
        values = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax(str(error), text, file)) from None
    except (RecursionError, ValueError):  # brackets in brackets; an integer of thousands of digits
        raise ConfigError(
            Mistake("is not TOML that can be read: nested or long beyond reason", file=file)
        ) from None
    return values, _Scanner(text).places()


def _syntax(message: str, text: str, file: str) -> Mistake:
    found = _SYNTAX.match(message)
    if found is None:
        return Mistake(f"is not TOML: {message}", file=file)
    line = int(found["line"] or text.count("\n") + 1)
    column = int(found["column"] or len(text) - text.rfind("\n"))
    return Mistake(f"is not TOML: {found['what']}", file=file, line=line, column=column)


class _Scanner:
    """Runs once over the text of a sound TOML file."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: Places = {}
        self.line, self.line_at = 1, 0  # of the last place told
        self.tables: dict[_Path, int] = {}  # how often each [[table]] has begun

    def places(self) -> Places:
        table: _Path = ()
        while self._skip_blank() < len(self.text):
            begin = self.at
            if self.text.startswith("[", begin):
                many = self.text.startswith("[[", begin)
                self.at += 2 if many else 1
                table = self._within_arrays(self._keys())
                if many:
                    number = self.tables[table] = self.tables.get(table, -1) + 1
                    table = (*table, number)
                self.at += 2 if many else 1
                self._put(table, begin)
            else:
                self._pair(table)
        return self.found

    def _within_arrays(self, keys: tuple[str, ...]) -> _Path:
        """Put the index of the last ``[[table]]`` after each key that is an array of tables."""
        path: _Path = ()
        for place, key in enumerate(keys):
            path = (*path, key)
            if path in self.tables and place < len(keys) - 1:
                path = (*path, self.tables[path])
        return path

    def _pair(self, table: _Path) -> None:
        path = (*table, *self._keys())
        self.at += 1  # the equals sign
        self._value(path)

    def _keys(self) -> tuple[str, ...]:
        keys: list[str] = []
        while True:
            match = _KEY.match(self.text, self.at)
            assert match is not None, "tomllib has accepted this"
            self.at = match.end()
            quoted, literal, bare = match.groups()
            if quoted is not None:
                keys.append(tomllib.loads(f'k="{quoted}"')["k"])
            else:
                keys.append(bare if literal is None else literal)
            if not self.text.startswith(".", self.at):
                return tuple(keys)
            self.at += 1

    def _value(self, path: _Path) -> None:
        self._skip_blank()
        self._put(path, self.at)
        opening = self.text[self.at]
        if opening in "[{":
            self.at += 1
            index = 0
            while self.text[self._skip_blank()] not in "]}":
                if opening == "[":
                    self._value((*path, index))
                else:
                    self._pair(path)
                index += 1
                if self.text[self._skip_blank()] == ",":
                    self.at += 1
            self.at += 1
        elif (string := _STRING.match(self.text, self.at)) is not None:
            self.at = string.end()
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def _skip_blank(self) -> int:
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.at

    def _put(self, path: _Path, at: int) -> None:
        self.line += self.text.count("\n", self.line_at, at)
        self.line_at = at
        self.found.setdefault(path, (self.line, at - self.text.rfind("\n", 0, at)))
