"""Where each value of a TOML file stands, so that a mistake can name its line and column.

``tomllib`` tells values and not places: a scanner of its own finds them.

``tomllib`` judges what is TOML. The scanner reads a little more than TOML and never judges, with two
exceptions that ``tomllib`` tells badly or not at all: what is set twice (told with both lines, all of it at
once) and what is nested beyond reason (``tomllib`` would run out of stack).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from os import PathLike
from typing import Any

from tmm_core.errors import ConfigError, Mistake
from tmm_core.policy.tables import MOST_MISTAKES, lines_of, read_file

__all__ = ["LARGEST_FILE", "Places", "Toml", "load_toml", "read_toml", "toml_of"]

LARGEST_FILE = 1 << 20
"""Bytes; no configuration written by people comes near."""

DEEPEST = 16
"""Brackets in brackets, or parts of a dotted key."""

KeyPath = tuple[str | int, ...]
Places = Mapping[KeyPath, tuple[int, int]]
"""Line and column, both from 1, of the value at a path of keys and array indices; of a table, its header's."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:"((?:\\.|[^"\\\n])*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*""")
_LONG_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}", re.DOTALL)
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'")
_BARE = re.compile(r"[^,\]}#\n]+")
_SYNTAX = re.compile(r"^(?P<what>.*?) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_LONG_NUMBER = re.compile(r"[0-9][0-9_]{4299,}")


@dataclass(frozen=True, slots=True)
class Toml:
    """The values of a TOML file, where each stands, and where its key does."""

    values: dict[str, Any]
    places: Places
    keys: Places

    def place_of(self, *path: str | int) -> tuple[int | None, int | None]:
        """Return line and column of the value at a path, or of the nearest thing around it that has any."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return None, None

    def place_of_key(self, *path: str | int) -> tuple[int | None, int | None]:
        """Return line and column of the key of the value at a path; of a section, its header's."""
        return self.keys.get(path) or self.place_of(*path)


def load_toml(path: str | PathLike[str]) -> Toml:
    """Read a TOML file; decimal numbers come as `Decimal`, as they are written.

    ConfigError, with line and column, if it cannot be read, is too large, is not UTF-8 or is not TOML.
    """
    return read_toml(read_file(path, LARGEST_FILE), os.fspath(path))


def read_toml(data: bytes, file: str) -> Toml:
    """Read the bytes of a TOML file; see `load_toml`."""
    found: list[Mistake] = []
    toml = toml_of(data, file, found, parse_float=Decimal)
    if toml is None or found:
        raise ConfigError(found)
    return toml


def toml_of(
    data: bytes, file: str, found: list[Mistake], *, parse_float: Callable[[str], Any] = float
) -> Toml | None:
    """Read the bytes of a TOML file, with or without byte order mark; None if they cannot be read as TOML.

    Mistakes go to `found`. What is set twice is told, and its first value taken, so that the caller can go on and find
    the other mistakes. `parse_float` makes a number of the text of a decimal one.
    """
    if len(data) > LARGEST_FILE:
        found.append(Mistake(f"more than {LARGEST_FILE >> 20} MiB, expected a TOML file", file=file))
        return None
    begin = len(found)
    if lines_of(data, file, found) is None or len(found) > begin:
        return None
    text = data.decode("utf-8-sig").replace("\r\n", "\n")
    scanner = _Scanner(text)
    scanner.run()
    if scanner.too_deep is not None:
        fault = f"nested more than {DEEPEST} deep, expected sections, keys and values"
        line, column = scanner.too_deep
        found.append(Mistake(fault, file=file, line=line, column=column))
        return None
    wrong: Mistake | None = None
    values: dict[str, Any] = {}
    try:
        values = tomllib.loads(scanner.text_without_repeats(), parse_float=parse_float)
    except tomllib.TOMLDecodeError as error:
        wrong = _syntax_fault(str(error), text, file)
        # tomllib tells the end of the file where the scanner knows the quotation mark that is never closed
        if scanner.lost is not None and wrong.line is not None and scanner.lost[0] < wrong.line:
            wrong.line, wrong.column = scanner.lost
    except (ValueError, RecursionError):  # an integer of thousands of digits
        number = _LONG_NUMBER.search(text)
        place = (None, None) if number is None else scanner.place(number.start())
        fault = "a number of thousands of digits, expected a number"
        wrong = Mistake(fault, file=file, line=place[0], column=place[1])
    for repeat in scanner.repeats[:MOST_MISTAKES]:
        fault = f"{repeat.what} is set twice, first in line {repeat.first}"
        line, column = scanner.place(repeat.begin)
        found.append(Mistake(fault, file=file, line=line, column=column, field=repeat.field))
    if wrong is not None:
        found.append(wrong)
        return None
    return Toml(values, scanner.places, scanner.keys)


def _syntax_fault(message: str, text: str, file: str) -> Mistake:
    found = _SYNTAX.match(message)
    if found is None:
        return Mistake(f"is not TOML: {message}", file=file)
    what = found["what"]
    line = int(found["line"] or text.count("\n") + 1)
    column = int(found["column"] or len(text) - text.rfind("\n"))
    return Mistake(f"is not TOML: {what[:1].lower()}{what[1:]}", file=file, line=line, column=column)


@dataclass(frozen=True, slots=True)
class _Repeat:
    """Something that is set a second time, and the part of the text to leave out."""

    what: str
    field: str
    first: int
    begin: int
    end: int


class _LostError(Exception):
    """This is not TOML: tomllib will say why."""


class _TooDeepError(Exception):
    """Nested beyond reason."""


class _Scanner:
    """Runs once over a text; `places`, `keys`, `repeats`, `too_deep` and `lost` are what it has found."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[KeyPath, tuple[int, int]] = {}
        self.keys: dict[KeyPath, tuple[int, int]] = {}
        self.repeats: list[_Repeat] = []
        self.too_deep: tuple[int, int] | None = None
        self.lost: tuple[int, int] | None = None
        self._line, self._begin, self._asked = 1, 0, 0  # the place asked for last, and where its line begins
        self._headers: set[KeyPath] = set()
        self._pairs: set[KeyPath] = set()
        self._counts: dict[KeyPath, int] = {}  # elements of each array of tables
        self._muted = False  # inside what is set a second time: nothing of it counts

    def run(self) -> None:
        try:
            self._document()
        except _TooDeepError:
            self.too_deep = self.place(self.at)
        except _LostError:
            self.lost = self.place(self.at)

    def text_without_repeats(self) -> str:
        """Blank out what is set a second time; all else keeps its place."""
        pieces, end = [], 0
        for repeat in self.repeats:
            pieces.append(self.text[end : repeat.begin])
            pieces.append(re.sub(r"[^\n]", " ", self.text[repeat.begin : repeat.end]))
            end = repeat.end
        pieces.append(self.text[end:])
        return "".join(pieces)

    def _document(self) -> None:
        table: KeyPath = ()
        again: tuple[str, int] | None = None  # a section that is there twice: name, first line
        again_at = 0
        while self._skip_blank() < len(self.text):
            begin = self.at
            if not self.text.startswith("[", begin):
                self._pair(table, top=True)
                continue
            if again is not None:
                self._repeated_section(*again, again_at, begin)
            table, again = self._header(begin)
            again_at = begin
            self._muted = again is not None
        if again is not None:
            self._repeated_section(*again, again_at, len(self.text))

    def _repeated_section(self, name: str, first: int, begin: int, end: int) -> None:
        self.repeats.append(_Repeat(f"section [{name}]", name, first, begin, end))

    def _header(self, begin: int) -> tuple[KeyPath, tuple[str, int] | None]:
        """Read a header; return its path and, if it is there already, its name and first line."""
        many = self.text.startswith("[[", begin)
        self.at += 2 if many else 1
        keys = self._keys()
        path = self._within_arrays(keys)
        closing = "]]" if many else "]"
        if not self.text.startswith(closing, self.at):
            raise _LostError
        self.at += len(closing)
        self._muted = False
        if many:
            number = self._counts[path] = self._counts.get(path, -1) + 1
            self._put(path, begin)
            path = (*path, number)
        elif path in self._headers:
            return path, (".".join(keys), self.places[path][0])
        else:
            self._headers.add(path)
        self._put(path, begin)
        return path, None

    def _put(self, path: KeyPath, at: int) -> None:
        if not self._muted:
            self.places.setdefault(path, self.place(at))

    def place(self, at: int) -> tuple[int, int]:
        """Return line and column of a character."""
        if at < self._asked:
            self._line, self._begin, self._asked = 1, 0, 0
        end = self.text.rfind("\n", self._asked, at)
        if end >= 0:
            self._line += self.text.count("\n", self._asked, at)
            self._begin = end + 1
        self._asked = at
        return self._line, at - self._begin + 1

    def _within_arrays(self, keys: tuple[str, ...]) -> KeyPath:
        """Put the index of the last ``[[table]]`` behind each key that is an array of tables."""
        path: KeyPath = ()
        for place, key in enumerate(keys):
            path = (*path, key)
            if path in self._counts and place < len(keys) - 1:
                path = (*path, self._counts[path])
        return path

    def _pair(self, table: KeyPath, depth: int = 0, *, top: bool = False) -> None:
        begin = self.at
        here = self.place(begin)
        keys = self._keys()
        if not self.text.startswith("=", self.at):
            raise _LostError
        self.at += 1
        self._skip_blank()
        for length in range(1, len(keys)):  # a.b = 1 begins the table a, if nothing did
            self._put((*table, *keys[:length]), begin)
        path = (*table, *keys)
        if top and not self._muted and path in self._pairs:
            self._muted = True
            self._value(path, depth)
            self._muted = False
            what = f"key {'.'.join(keys)!r}"
            self.repeats.append(_Repeat(what, keys[-1], self.places[path][0], begin, self.at))
            return
        if not self._muted:
            self.keys.setdefault(path, here)
            if top:
                self._pairs.add(path)
        self._value(path, depth)

    def _keys(self) -> tuple[str, ...]:
        keys: list[str] = []
        while True:
            match = _KEY.match(self.text, self.at)
            if match is None:
                raise _LostError
            self.at = match.end()
            quoted, literal, bare = match.groups()
            if quoted is not None:
                keys.append(_unescaped(quoted))
            else:
                keys.append(bare if literal is None else literal)
            if len(keys) > DEEPEST:
                raise _TooDeepError
            if not self.text.startswith(".", self.at):
                return tuple(keys)
            self.at += 1

    def _value(self, path: KeyPath, depth: int) -> None:
        if depth > DEEPEST:
            raise _TooDeepError
        self._skip_blank()
        self._put(path, self.at)
        opening = self.text[self.at : self.at + 1]
        if opening in ("[", "{"):
            self._nested(path, depth, opening)
            return
        if self.text.startswith(('"""', "'''"), self.at):
            known = _LONG_STRING
        else:
            known = _STRING if opening in ('"', "'") else _BARE
        match = known.match(self.text, self.at)
        if match is None:
            raise _LostError
        self.at = match.end()

    def _nested(self, path: KeyPath, depth: int, opening: str) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip_blank()
            here = self.text[self.at : self.at + 1]
            if here in ("]", "}"):
                self.at += 1
                return
            if opening == "[":
                self._value((*path, index), depth + 1)
            else:
                self._pair(path, depth + 1)
            index += 1
            self._skip_blank()
            if self.text.startswith(",", self.at):
                self.at += 1
            elif self.text[self.at : self.at + 1] not in ("]", "}"):
                raise _LostError

    def _skip_blank(self) -> int:
        match = _BLANK.match(self.text, self.at)
        assert match is not None, "it matches nothing at all, too"
        self.at = match.end()
        return self.at


def _unescaped(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted
    try:
        return str(tomllib.loads(f'k="{quoted}"')["k"])
    except tomllib.TOMLDecodeError:
        raise _LostError from None
