"""Read the header of a DUIS message: who sends which Service Request, and nothing behind it.

DUIS, the DCC User Interface Specification, is XML over HTTP POST. The header ends within about 540 bytes of
messages of 1.6 to 27 kB, so reading stops there: the time does not depend on the size of the message.

A message comes from outside and may be hostile. Expat reads it with namespaces, at most 64 KiB of it, and:

* an encoding other than UTF-8 and UTF-16 is refused before expat could switch to it;
* nothing from ``<!D`` on is ever given to expat: without a document type there are no entities to expand, to
  fetch or to multiply, and no default attributes;
* everything the schema does not allow in a header is refused where it stands, so that two readers of one
  message cannot come to different Users.

References: DUIS XML schema V5.4; Extensible Markup Language (XML) 1.0, Fifth Edition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from xml.parsers import expat

from tmm_core.engines import native
from tmm_core.errors import DuisError

if TYPE_CHECKING:
    from tmm_core.engines import Kinds

__all__ = ["LIMIT", "NAMESPACE", "Header", "HeaderReader", "known_names", "read_header"]

#: Namespace of the root element ``Request``.
NAMESPACE = "http://www.dccinterface.co.uk/ServiceUserGateway"
#: Bytes of a message that are read at most.
LIMIT = 65_536

# Expat gets the message in pieces. What stands behind the header in the same piece is read in vain: so the
# first is small. A token that spans many pieces is read again with each: so they grow with what was read.
_PIECE = 1_024
_LARGEST_PIECE = 8_192
_TEXT_LIMIT = 256  # characters of one element of the header, white space included
_WHITE = " \t\r\n"  # white space of XML; str.strip() alone would take more

_ROOT = f"{NAMESPACE} Request"
_HEADER = f"{NAMESPACE} Header"
_FIELDS = (
    "RequestID",
    "FirstInSequence",
    "PrecedingServiceRequestID",
    "CommandVariant",
    "ServiceReference",
    "ServiceReferenceVariant",
)
_PLACES = {f"{NAMESPACE} {name}": place for place, name in enumerate(_FIELDS)}
_END = len(_FIELDS)
# Places in _FIELDS that may come next: before the first, after the first, and so on.
_NEXT = ({0}, {1, 2, 3}, {2, 3}, {3}, {4}, {5}, frozenset[int]())

_EUI64 = "[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){7}"
_REFERENCE = r"[0-9]{1,3}(?:\.[0-9]{1,3}){1,3}"
_REQUEST_ID = re.compile(rf"({_EUI64}):({_EUI64}):(0|[1-9][0-9]{{0,19}})")
_FORMS = (
    (_REQUEST_ID, "an EUI-64, a colon, an EUI-64, a colon and a counter"),
    (re.compile("true|false|0|1"), "true or false"),
    (_REQUEST_ID, "an EUI-64, a colon, an EUI-64, a colon and a counter"),
    (re.compile("[1-8]"), "a Command Variant from 1 to 8"),
    (re.compile(_REFERENCE), "a Service Reference, for example 4.1"),
    (re.compile(_REFERENCE), "a Service Reference Variant, for example 4.1.1"),
)
_COUNTER_LIMIT = 1 << 64
_SCHEMA_VERSION = re.compile(r"[0-9]{1,8}(?:\.[0-9]{0,8})?")

_ENCODINGS = {
    "utf-8": {"utf-8", "us-ascii"},
    "utf-16le": {"utf-16", "utf-16le"},
    "utf-16be": {"utf-16", "utf-16be"},
}
_TRUNCATED = frozenset(
    expat.errors.codes[text]
    for text in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
)


class Header(NamedTuple):
    """What the header of a DUIS message says; unsigned text until somebody checks the signature.

    Attributes
    ----------
    user_id, target_id : str
        EUI-64 of the originator and of the target, in upper case.
    counter : int
        0 to 18446744073709551615.
    command_variant : int
        1 to 8.
    service_reference, srv_code : str
        For example ``"4.1"`` and ``"4.1.1"``; not necessarily in the catalogue.
    """

    # A named tuple, not a dataclass: it is made for each message, in a quarter of the time.
    user_id: str
    target_id: str
    counter: int
    command_variant: int
    service_reference: str
    srv_code: str


def read_header(message: bytes | bytearray | memoryview | Iterable[bytes]) -> Header:
    """Return the header of a DUIS message.

    Parameters
    ----------
    message : bytes-like or iterable of bytes
        The message, or its parts in order; no more parts are taken than the header needs.

    Raises
    ------
    DuisError
        There is no readable header within 64 KiB: with the byte offset, what was found and what was expected.

    Notes
    -----
    *Thread-safe.* Constant time whatever the size of the message.

    Examples
    --------
    >>> read_header(
    ...     b'<Request xmlns="http://www.dccinterface.co.uk/ServiceUserGateway" schemaVersion="5.4"><Header>'
    ...     b"<RequestID>90-b3-d5-1f-30-01-00-00:00-db-12-34-56-78-90-a0:1000</RequestID>"
    ...     b"<CommandVariant>1</CommandVariant><ServiceReference>4.1</ServiceReference>"
    ...     b"<ServiceReferenceVariant>4.1.1</ServiceReferenceVariant></Header>..."
    ... )  # doctest: +NORMALIZE_WHITESPACE
    Header(user_id='90-B3-D5-1F-30-01-00-00', target_id='00-DB-12-34-56-78-90-A0', counter=1000,
           command_variant=1, service_reference='4.1', srv_code='4.1.1')
    """
    if type(message) is bytes and (header := _known(message)) is not None:
        return header
    reader = HeaderReader()
    if isinstance(message, (bytes, bytearray, memoryview)):
        header = reader.feed(bytes(message[:LIMIT]), last=True)
    else:
        for part in message:
            if (header := reader.feed(part)) is not None:
                return header
        header = reader.feed(b"", last=True)
    assert header is not None  # feed(last=True) returns a header or raises
    return header


class HeaderReader:
    """Read the header of one DUIS message that arrives in parts.

    *Not thread-safe*: one reader for one message. At most 64 KiB are looked at, less than 8 KiB are held.
    """

    __slots__ = (
        "_at", "_depth", "_encoding", "_fed", "_first", "_header", "_held", "_marker", "_next", "_parser",
        "_room", "_size", "_start", "_tail", "_text", "_values",
    )  # fmt: skip

    def __init__(self) -> None:
        self._header: Header | None = None
        self._held = b""  # arrived, not yet given to expat
        self._room = LIMIT  # bytes still looked at
        self._parser: expat.XMLParserType | None = None

    def feed(self, part: bytes, last: bool = False) -> Header | None:
        """Take the next part of the message; return the header once it is complete.

        Parameters
        ----------
        part : bytes
        last : bool
            The message ends here.

        Returns
        -------
        Header or None
            None: more of the message is needed. Never None if `last`.

        Raises
        ------
        DuisError
            There is no readable header. A reader that has raised must not be fed again.
        """
        if self._header is not None:
            return self._header
        part = part[: self._room]
        self._room -= len(part)
        full = last or not self._room
        if self._parser is None:
            if not self._held and (header := _known(part)) is not None:
                self._header = header
                return header
            data = self._held + part if self._held else part
            if len(data) < _PIECE and not full:
                self._held = data
                return None
            self._begin(data)
        else:
            data = self._held + part
        try:
            self._header = self._read(data, full, last)
        except DuisError:
            self._parser = None  # the parser and this reader hold each other
            raise
        if self._header is not None:
            self._parser = None
        return self._header

    def _read(self, data: bytes, full: bool, last: bool) -> Header | None:
        start = 0
        while self._header is None:
            size = min(max(_PIECE, self._fed), _LARGEST_PIECE)
            if len(data) - start < size and not (full and start < len(data)):
                break
            self._parse(data[start : start + size])
            start += size
        if self._header is None and full:
            self._finish(last)
        self._held = data[start:]
        return self._header

    def _begin(self, data: bytes) -> None:
        """Choose the encoding by the first bytes (XML 1.0, appendix F), and make the parser."""
        if data[:2] in (b"\xff\xfe", b"<\0"):
            self._encoding, self._marker = "utf-16le", "<!D".encode("utf-16-le")
        elif data[:2] in (b"\xfe\xff", b"\0<"):
            self._encoding, self._marker = "utf-16be", "<!D".encode("utf-16-be")
        else:
            self._encoding, self._marker = "utf-8", b"<!D"
        # The encoding given here outranks the one the message declares: expat never switches.
        parser = expat.ParserCreate(self._encoding, " ")
        parser.buffer_text = True
        parser.ordered_attributes = True
        parser.XmlDeclHandler = self._on_declaration
        parser.StartElementHandler = self._on_start
        parser.EndElementHandler = self._on_end
        parser.CharacterDataHandler = self._on_text
        self._parser = parser
        self._fed = 0
        self._tail = b""
        self._first = data[:_PIECE]
        self._depth = self._next = self._size = self._at = self._start = 0
        self._text: list[str] = []
        self._values: dict[int, str] = {}

    def _parse(self, piece: bytes) -> None:
        parser = self._parser
        assert parser is not None
        # The marker may have begun in the piece before: what of it was fed is a token without its end.
        seen = self._tail + piece
        found = seen.find(self._marker)
        allowed = piece if found < 0 else piece[: max(0, found - len(self._tail))]
        try:
            parser.Parse(allowed, False)
        except expat.ExpatError as error:
            if self._header is None:
                raise self._malformed(error) from None
        if found >= 0 and self._header is None:
            fault = "a document type declaration ('<!D') is not allowed in a DUIS message"
            raise DuisError(fault, self._fed - len(self._tail) + found)
        self._fed += len(piece)
        self._tail = seen[-(len(self._marker) - 1) :]

    def _finish(self, last: bool) -> None:
        parser = self._parser
        assert parser is not None
        try:
            parser.Parse(b"", True)  # newer versions of expat may still hold back a token
        except expat.ExpatError as error:
            if self._header is not None:
                return
            if error.code not in _TRUNCATED:
                raise self._malformed(error) from None
            if self._fed >= LIMIT:
                fault = f"the header does not end within {LIMIT} bytes"
            else:
                fault = f"the message ends before its header does, expected {self._expected()}"
            raise DuisError(fault, self._fed) from None

    def _malformed(self, error: expat.ExpatError) -> DuisError:
        assert self._parser is not None
        text = expat.ErrorString(error.code) or "error"
        return DuisError(f"not well-formed XML: {text}", self._parser.ErrorByteIndex)

    def _fault(self, message: str, at: int | None = None) -> DuisError:
        assert self._parser is not None
        return DuisError(message, self._parser.CurrentByteIndex if at is None else at)

    def _expected(self) -> str:
        """Say what may come next."""
        if self._depth == 0:
            return f"the root element Request in the namespace {NAMESPACE}"
        if self._depth == 1:
            return "the element Header"
        if self._depth == 3:
            return f"the end of {_FIELDS[self._next - 1]}"
        if self._next == _END:
            return "the end of Header"
        return " or ".join(_FIELDS[place] for place in sorted(_NEXT[self._next]))

    # What follows is called by expat. An exception ends all calls; expat reads its piece to the end.

    def _on_declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS[self._encoding]:
            fault = f"encoding {_shown(encoding)} of a message in {self._encoding}, expected UTF-8 or UTF-16"
            raise self._fault(fault)

    def _on_start(self, name: str, attributes: list[str]) -> None:
        if self._depth == 2:
            place = _PLACES.get(name, -1)
            if place not in _NEXT[self._next]:
                raise self._fault(f"found the element {_local(name)}, expected {self._expected()}")
            assert self._parser is not None
            self._at = self._parser.CurrentByteIndex
            if place == 0:
                self._start = self._at
            self._next = place + 1
            self._size = 0
            self._text.clear()
        elif self._depth == 0:
            if name != _ROOT:
                raise self._fault(f"found the root element {_shown(name)}, expected {self._expected()}")
            named = dict(zip(attributes[::2], attributes[1::2], strict=True))
            version = named.get("schemaVersion")
            if version is None:
                raise self._fault("Request has no attribute schemaVersion, expected one, for example 5.4")
            if not _SCHEMA_VERSION.fullmatch(version.strip(_WHITE)):
                raise self._fault(f"schemaVersion {_shown(version)}, expected a decimal, for example 5.4")
        elif self._depth == 1:
            if name != _HEADER:
                raise self._fault(f"found the element {_local(name)}, expected {self._expected()}")
        else:
            raise self._fault(f"found the element {_local(name)}, expected {self._expected()}")
        self._depth += 1

    def _on_text(self, text: str) -> None:
        if self._depth == 3:
            self._size += len(text)
            if self._size > _TEXT_LIMIT:
                fault = f"{_FIELDS[self._next - 1]} is longer than {_TEXT_LIMIT} characters"
                raise self._fault(fault, self._at)
            self._text.append(text)
        elif text.strip(_WHITE):
            raise self._fault(f"found the text {_shown(text)}, expected {self._expected()}")

    def _on_end(self, name: str) -> None:
        if self._depth == 3:
            place = self._next - 1
            value = "".join(self._text).strip(_WHITE)
            form, expected = _FORMS[place]
            if not form.fullmatch(value):
                raise self._fault(f"{_FIELDS[place]} {_shown(value)}, expected {expected}", self._at)
            self._values[place] = value
            self._depth = 2
            if place in (0, 2) and int(value[48:]) >= _COUNTER_LIMIT:
                fault = f"{_FIELDS[place]} has the counter {value[48:]}, expected at most 2^64 - 1"
                raise self._fault(fault, self._at)
            reference = self._values.get(4)
            if place == 5 and not f"{value}.".startswith(f"{reference}."):
                fault = f"ServiceReferenceVariant {value}, expected a variant of ServiceReference {reference}"
                raise self._fault(fault, self._at)
        elif self._depth == 2 and self._next == _END:
            self._complete()
        else:
            raise self._fault(f"found the end of {_local(name)}, expected {self._expected()}")

    def _complete(self) -> None:
        parser = self._parser
        assert parser is not None
        values = self._values
        ids = values[0].upper()
        self._header = Header(ids[:23], ids[24:47], int(ids[48:]), int(values[3]), values[4], values[5])
        # What follows the header is not looked at.
        parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
        if self._encoding == "utf-8":
            _learn(self._first, self._start, self._header)


# The common form again and again. Of the messages of one sender, everything up to the start tag of
# RequestID has the same bytes. Expat is a machine that reads from left to right: after the same bytes it is
# in the same state. So where expat has once read a message with these first bytes and found RequestID
# there, the engine reads the rest of a plain header (header.pxd). It takes no character that XML reads in
# more than one way: no '&', no comment, no CDATA section, no attribute. Anything else goes to expat. And of a
# message that differs from one read before in its six values alone, the rest is only compared.
kinds = native.Kinds()
#: Return User and SRV of a plain message of a known kind; None: read it. What `read_header` would say, for who needs
#: no more of it. *Thread-safe.*
known_names = kinds.names


def _known(part: bytes) -> Header | None:
    """Return the header of a message in the common form whose first bytes are known; None: ask expat."""
    return _plain(part, kinds)


def _plain(part: bytes, known: Kinds) -> Header | None:
    found = known.header(part)
    if found is None:
        return None
    user_id, target_id, counter, variant, reference, srv_code = found
    return Header(user_id, target_id, int(counter), int(variant), reference, srv_code)


def _learn(first: bytes, at: int, header: Header) -> None:
    """Keep the first bytes of a message whose RequestID expat found at the byte offset `at`."""
    end = first.find(b"RequestID>") + 10
    if at >= end:
        return  # the first 'RequestID>' stands before the start tag, in a comment
    prefix = first[at + 1 : end - 10]
    # Header must begin with the prefix of RequestID: it does if this message reads the same to its end tag.
    alone = native.Kinds()
    alone.learn(first, end, prefix)
    if _plain(first, alone) == header:
        kinds.learn(first, end, prefix)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:80] + "...")


def _local(name: str) -> str:
    """The element's name for a message: without the namespace where it is the right one."""
    uri, _, local = name.rpartition(" ")
    return _shown(local if uri == NAMESPACE else name)
