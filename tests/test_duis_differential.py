"""Two ways to read a DUIS header, and an independent reader, never disagree."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gateway.messages import NAMESPACE, OTHER_USER, TARGET, USER, compose
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tmm_core import DuisError
from tmm_core.gateway import duis
from tmm_core.gateway.duis import Header, read_header

NAMED = [0]  # how often the shortest way was taken


@contextmanager
def expat_only() -> Iterator[None]:
    """Switch the common form's short way off."""
    short_way = duis._known
    duis._known = lambda part: None
    try:
        yield
    finally:
        duis._known = short_way


def answer(message: bytes | Iterator[bytes]) -> Header | str:
    try:
        return read_header(message)
    except DuisError as error:
        return str(error)


def agreed(message: bytes) -> Header | str:
    """Read by expat, by the short way, and in parts; return the one answer."""
    with expat_only():
        expected = answer(message)
    assert answer(message) == expected
    assert answer(message) == expected
    # And by what has been read before, byte for byte: the same, or nothing.
    names = duis.known_names(message)
    if names is not None:
        assert isinstance(expected, Header)
        assert names == (expected.user_id, expected.srv_code)
        NAMED[0] += 1
    return expected


# White space, and a little more, where it may be and where it may not.
space = st.sampled_from(
    ["", "", " ", "\n", "\r\n\t", " " * 70, " " * 300, "\u00a0", "\x0b", "<!-- c -->", "<?p?>", "x"]
)
prefix = st.sampled_from(["", "sr:", "sr:", "a:", "ü:", "RequestID:"])
ids = st.sampled_from(
    [
        USER,
        USER.lower(),
        OTHER_USER,
        "90-B3-D5-1F-30-01-00",
        "90-B3-D5-1F-30-01-00-0G",
        "\uff19\uff10-B3-D5-1F-30-01-00-00",
    ]
)
counters = st.sampled_from(
    ["0", "1", "9999999999999999999", "18446744073709551615", "18446744073709551616", "01", ""]
)
references = st.sampled_from(["4.1", "4.1", "7.4", "4", "4.1.1", "1234.1", "4.1234", "", "&#52;.1"])
srvs = st.sampled_from(["4.1.1", "4.1", "7.4", "4.11", "4.1.", "4.1.1.1", "4.1.1.1.1", "4.1.1234"])
firsts = st.sampled_from(["", "", "<{p}FirstInSequence>true</{p}FirstInSequence>", "<{p}FirstInSequence/>"])
precedings = st.sampled_from(
    ["", "", f"<{{p}}PrecedingServiceRequestID>{OTHER_USER}:{TARGET}:7</{{p}}PrecedingServiceRequestID>"]
)
starts = st.sampled_from(
    ["", "\ufeff", '<?xml version="1.0" encoding="UTF-8"?>', "<!-- <sr:RequestID> -->", "<!DOCTYPE a>", " "]
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message much like a DUIS message, seldom quite one."""
    p, other = draw(prefix), draw(prefix)

    def element(name: str, value: str) -> str:
        close = draw(st.sampled_from([p, p, p, p, p, p, other]))
        return f"<{p}{name}>{draw(space)}{value}{draw(space)}</{close}{name}>{draw(space)}"

    xmlns = f"xmlns:{p[:-1]}" if p else "xmlns"
    header = draw(st.sampled_from([p, p, p, p, other]))
    attributes = draw(st.sampled_from(["", "", "", " a='b'"]))
    text = (
        f'{draw(starts)}<{p}Request {xmlns}="{NAMESPACE}" schemaVersion="5.4"><{header}Header>'
        f"<{p}RequestID{attributes}>{draw(space)}{draw(ids)}:{TARGET}:{draw(counters)}{draw(space)}</{p}RequestID>"
        f"{draw(space)}{draw(firsts).format(p=p)}{draw(precedings).format(p=p)}"
        + element("CommandVariant", draw(st.sampled_from("12890")))
        + element("ServiceReference", draw(references))
        + element("ServiceReferenceVariant", draw(srvs))
        + f"</{header}Header><{p}Body/></{p}Request>"
    )
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16"])))


@settings(max_examples=1_500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages())
def test_the_short_way_gives_the_answer_of_expat(message: bytes) -> None:
    agreed(message)


@settings(max_examples=300, deadline=None)
@given(messages(), st.lists(st.integers(1, 1_200), min_size=1, max_size=20))
def test_parts_of_any_size_give_the_answer_of_the_whole(message: bytes, sizes: list[int]) -> None:
    def parts() -> Iterator[bytes]:
        at = turn = 0
        while at < len(message):
            size = sizes[turn % len(sizes)]
            yield message[at : at + size]
            at, turn = at + size, turn + 1

    expected = agreed(message)
    assert answer(parts()) == expected


def mutated(message: bytes, random_: random.Random) -> bytes:
    """One to three small damages: a byte, a missing piece, a repeated piece, a piece of XML."""
    pieces = [
        b"<",
        b">",
        b"/",
        b"&",
        b"&#65;",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"]]>",
        b"<!D",
        b'"',
        b"\0",
        b"\xc3",
    ]
    for _ in range(random_.randint(1, 3)):
        at = random_.randrange(len(message))
        end = min(len(message), at + random_.randint(1, 60))
        damage = random_.randrange(4)
        if damage == 0:
            message = message[:at] + bytes([random_.randrange(256)]) + message[at + 1 :]
        elif damage == 1:
            message = message[:at] + message[end:]
        elif damage == 2:
            message = message[:at] + message[at:end] * 2 + message[end:]
        else:
            message = message[:at] + random_.choice(pieces) + message[at:]
    return message


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_what_has_been_read_before_is_not_mistaken_for_something_else(data: st.DataObject) -> None:
    """Start, identifiers and tail of three messages each: only what belongs together is known."""
    sources = [compose(), compose(prefix=""), compose("7.4", user=OTHER_USER), compose(prefix="a:")]
    starts, tails = [], []
    for source in sources:
        assert read_header(source) == read_header(source)
        start, _, rest = source.partition(b"RequestID>")
        starts.append(start + b"RequestID>")
        tails.append(rest[rest.index(b"<") :])
    ids = (
        data.draw(st.sampled_from([USER, USER.lower(), USER[:-1], "", f"{USER}:{TARGET}"])),
        data.draw(counters),
    )
    middle = f"{ids[0]}:{TARGET}:{ids[1]}{data.draw(st.sampled_from(['', ' ', '<!-- -->']))}".encode()
    agreed(data.draw(st.sampled_from(starts)) + middle + data.draw(st.sampled_from(tails)))


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_message_gets_one_answer_whoever_reads_it(seed: int) -> None:
    print(f"seed {seed}")
    random_ = random.Random(seed)
    first = "<sr:FirstInSequence>1</sr:FirstInSequence>"
    originals = [compose(), compose(prefix=""), compose(before_variant=first)]
    read, named = 0, NAMED[0]
    for _ in range(2_500):
        original = random_.choice(originals)
        agreed(original)
        read += isinstance(agreed(mutated(original, random_)), Header)
    assert 100 < read < 2_400  # the damages are neither harmless nor always fatal
    assert NAMED[0] - named > 1_000


def test_every_byte_at_every_place_of_an_eui64_is_taken_or_left_as_the_form_says() -> None:
    """All 256 bytes: the short way looks at eight at a time."""
    message = compose(user="0A-9F-AF-09-90-FA-00-99")
    assert duis.known_names(message) or read_header(message)
    form = re.compile(rb"[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){7}:[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){7}")
    begin = message.index(b"RequestID>") + 10
    taken = 0
    for at in range(begin, begin + 47):
        for byte in range(256):
            changed = message[:at] + bytes([byte]) + message[at + 1 :]
            names = duis.known_names(changed)
            ids = changed[begin : begin + 47]
            assert (names is not None) == (form.fullmatch(ids) is not None), ids
            if names is not None:
                assert names == (ids[:23].decode().upper(), "4.1.1")
                taken += 1
    assert taken == 32 * 22 + 14 + 1  # 32 digits with 22 spellings, 14 hyphens, a colon


def test_what_is_read_is_what_lxml_finds_in_the_tree() -> None:
    etree = pytest.importorskip("lxml.etree", reason="lxml, the independent reader, is not installed")

    def by_lxml(message: bytes) -> Header:
        root = etree.fromstring(message, etree.XMLParser(resolve_entities=False, no_network=True))

        def value(name: str) -> str:
            # string() is the text of an element as the schema sees it: without comments.
            path = f"string(/d:Request/d:Header/d:{name})"
            return re.sub("[ \t\r\n]+", " ", root.xpath(path, namespaces={"d": NAMESPACE})).strip(" ")

        user_id, target_id, counter = value("RequestID").split(":")
        reference, srv = value("ServiceReference"), value("ServiceReferenceVariant")
        variant = int(value("CommandVariant"))
        return Header(user_id.upper(), target_id.upper(), int(counter), variant, reference, srv)

    compared = 0

    @settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(messages())
    def compare(message: bytes) -> None:
        nonlocal compared
        found = agreed(message)
        if isinstance(found, Header):
            assert found == by_lxml(message)
            compared += 1

    compare()
    for form in ("4.1<!-- x -->.1", "4&#46;1.1", "<![CDATA[4.1]]>.1", " 4.1.1\r\n"):
        message = compose(form, reference="4.1", user=USER.lower())
        assert agreed(message) == by_lxml(message)
        compared += 1
    print(f"{compared} headers compared")
