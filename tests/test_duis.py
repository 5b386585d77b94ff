"""The header of a DUIS message is read as the schema means it, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway.messages import NAMESPACE, OTHER_USER, TARGET, USER, compose

from tmm_core import DuisError
from tmm_core.gateway import duis
from tmm_core.gateway.duis import LIMIT, Header, HeaderReader, read_header
from tmm_core.policy.catalogue import catalogue

PLAIN = Header(USER, TARGET, 1000, 1, "4.1", "4.1.1")


@pytest.fixture(autouse=True)
def _nothing_learnt() -> Iterator[None]:
    duis.kinds.clear()
    yield
    duis.kinds.clear()


def refused(message: bytes) -> DuisError:
    """Return the refusal of a message: the same whole and byte by byte, learnt from or not."""
    with pytest.raises(DuisError) as whole:
        read_header(message)
    read_header(compose())
    with pytest.raises(DuisError) as again:
        read_header(message)
    with pytest.raises(DuisError) as parts:
        read_header(message[i : i + 1] for i in range(len(message)))
    assert str(whole.value) == str(again.value) == str(parts.value)
    return whole.value


def test_the_header_of_a_plain_message_is_read() -> None:
    assert read_header(compose()) == PLAIN


@pytest.mark.parametrize("request_", catalogue(), ids=lambda request: request.srv_code)
def test_every_service_request_is_read_with_each_of_its_command_variants(request_) -> None:
    for variant in request_.command_variants:
        header = read_header(
            compose(request_.srv_code, reference=request_.service_reference, variant=variant)
        )
        assert header == Header(USER, TARGET, 1000, variant, request_.service_reference, request_.srv_code)


@pytest.mark.parametrize("prefix", ["", "sr:", "a:", "Header:", "x-1.y_z:", "ü:"])
def test_any_namespace_prefix_or_none_will_do(prefix: str) -> None:
    assert read_header(compose(prefix=prefix)) == PLAIN
    assert read_header(compose(prefix=prefix, counter=7)).counter == 7


def test_two_prefixes_of_one_namespace_may_be_mixed() -> None:
    message = compose().replace(b"<sr:Request ", b'<sr:Request xmlns:b="%b" ' % NAMESPACE.encode())
    message = message.replace(b"<sr:Header>", b"<b:Header>").replace(b"</sr:Header>", b"</b:Header>")
    assert read_header(message) == PLAIN
    # The same first bytes again, but the end tag of Header is not that of its start tag.
    assert "mismatched tag" in str(refused(message.replace(b"</b:Header>", b"</sr:Header>")))


@pytest.mark.parametrize("declaration", ["", "\n<!-- a comment -->\n", '<?xml version="1.0"?>', "<?pi x?>"])
def test_what_may_stand_before_the_root_is_passed_over(declaration: str) -> None:
    assert read_header(compose(declaration=declaration)) == PLAIN


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("declared", [True, False])
def test_utf_8_and_utf_16_are_read_with_and_without_byte_order_mark(encoding: str, declared: bool) -> None:
    name = "UTF-8" if encoding == "utf-8-sig" else "UTF-16"
    declaration = f'<?xml version="1.0" encoding="{name}"?>' if declared else ""
    message = compose(declaration=declaration).decode().encode(encoding)
    assert read_header(message) == PLAIN
    assert read_header(message) == PLAIN
    big_endian = "\ufeff".encode("utf-16-be") + compose(declaration="").decode().encode("utf-16-be")
    assert read_header(big_endian) == PLAIN


def test_attributes_of_the_root_may_stand_in_any_order() -> None:
    attributes = f"schemaVersion='5.2' xmlns:ds='http://www.w3.org/2000/09/xmldsig#' xmlns='{NAMESPACE}'"
    message = compose(prefix="", declaration="").replace(
        f'xmlns="{NAMESPACE}" schemaVersion="5.4"'.encode(), attributes.encode()
    )
    assert attributes.encode() in message
    assert read_header(message) == PLAIN


def test_comments_and_processing_instructions_inside_the_header_are_not_part_of_a_value() -> None:
    message = compose(
        "4.1<!-- 7.4 --><?x y?>.1", reference="4.1", in_header="<!-- <sr:RequestID>decoy --><?a?>"
    )
    assert read_header(message) == PLAIN


def test_character_references_and_cdata_sections_are_read_as_xml_means_them() -> None:
    assert read_header(compose("4&#46;1.<![CDATA[1]]>", reference="4.1")) == PLAIN


def test_a_request_id_in_a_comment_before_the_first_one_is_no_way_around_expat() -> None:
    decoy = (
        "<!-- <sr:RequestID>{0}:{1}:1000</sr:RequestID><sr:CommandVariant>1</sr:CommandVariant>"
        "<sr:ServiceReference>4.1</sr:ServiceReference>"
        "<sr:ServiceReferenceVariant>4.1.1</sr:ServiceReferenceVariant></sr:Header> -->"
    )
    assert read_header(compose(in_header=decoy.format(USER, TARGET))) == PLAIN
    # The same first bytes; now the comment names another User.
    assert read_header(compose(in_header=decoy.format(OTHER_USER, TARGET))) == PLAIN


def test_a_decoy_without_a_prefix_is_no_way_around_expat_either() -> None:
    plain = compose(prefix="").decode()
    decoy = f"<!--{plain[plain.index('<RequestID>') : plain.index('</Header>')]}</Header>-->"
    assert read_header(compose(prefix="", in_header=decoy)) == PLAIN
    assert read_header(compose(prefix="", in_header=decoy.replace(USER, OTHER_USER))) == PLAIN


def test_an_end_tag_with_another_prefix_than_its_start_tag_is_refused() -> None:
    start, _, rest = compose().partition(b"<sr:RequestID>")
    message = start + b"<sr:RequestID>" + rest.replace(b"sr:", b"b:")
    assert "mismatched tag" in str(refused(message))


def test_a_document_type_is_refused_wherever_the_pieces_end() -> None:
    for filling in range(1_000, 1_050):
        document_type = "<!DOCTYPE r [<!ENTITY a '4'>]>"
        message = compose("&a;.1.1", reference="4.1", declaration=f"<!--{'x' * filling}-->{document_type}")
        error = refused(message)
        assert "document type declaration" in str(error)
        assert error.offset == len("<!---->") + filling


@pytest.mark.parametrize("first", ["true", "false", "1", "0", " true\n"])
def test_first_in_sequence_is_passed_over(first: str) -> None:
    element = f"<sr:FirstInSequence>{first}</sr:FirstInSequence>"
    assert read_header(compose(before_variant=element)) == PLAIN


def test_the_preceding_service_request_id_is_no_identity() -> None:
    element = f"<sr:PrecedingServiceRequestID>{OTHER_USER}:{TARGET}:999</sr:PrecedingServiceRequestID>"
    assert read_header(compose(before_variant=element)) == PLAIN
    first = "<sr:FirstInSequence>true</sr:FirstInSequence>"
    assert read_header(compose(before_variant=first + element)) == PLAIN


def test_identifiers_come_in_upper_case() -> None:
    assert read_header(compose(user=USER.lower(), target=TARGET.lower())) == PLAIN


def test_white_space_around_a_value_collapses() -> None:
    message = compose("\r\n\t 4.1.1 \n", reference=" 4.1\t", user="\n  " + USER, counter="1000 ")
    assert read_header(message) == PLAIN


def test_other_white_space_than_that_of_xml_does_not() -> None:
    assert refused(compose("\u00a04.1.1", reference="4.1")).offset == refused(compose("4.1.x")).offset


@pytest.mark.parametrize("counter", [0, 1, 2**63, 2**64 - 1])
def test_counters_reach_from_0_to_18446744073709551615(counter: int) -> None:
    assert read_header(compose(counter=counter)).counter == counter


@pytest.mark.parametrize("counter", [2**64, "01", "-1", "+1", "", "1.0", "٣", 10**30])
def test_a_counter_out_of_range_is_refused_where_it_stands(counter: int | str) -> None:
    message = compose(counter=counter)
    error = refused(message)
    assert error.offset == message.index(b"<sr:RequestID>")
    assert "RequestID" in str(error)
    assert "expected" in str(error)


def test_an_unknown_srv_is_read() -> None:
    assert read_header(compose("99.9")).srv_code == "99.9"
    assert read_header(compose("4.1.999")).srv_code == "4.1.999"


def test_the_service_reference_variant_must_belong_to_the_service_reference() -> None:
    error = refused(compose("7.4", reference="4.1"))
    assert "ServiceReferenceVariant 7.4, expected a variant of ServiceReference 4.1" in str(error)
    assert "expected a variant" in str(refused(compose("4.11", reference="4.1")))


@pytest.mark.parametrize("variant", ["0", "9", "10", "", "1 2", "x", "¹"])
def test_command_variants_other_than_1_to_8_are_refused(variant: str) -> None:
    assert "expected a Command Variant from 1 to 8" in str(refused(compose(variant=variant)))


@pytest.mark.parametrize(
    ("found", "written", "expected"),
    [
        ("<sr:Request ", "<sr:Response ", "expected the root element Request"),
        ("</sr:RequestID>", "</sr:RequestID><sr:RequestID>x</sr:RequestID>", "expected FirstInSequence or"),
        ("<sr:Header>", "<sr:Body/><sr:Header>", "expected the element Header"),
        ("<sr:Header>", "text<sr:Header>", "expected the element Header"),
        ("<sr:CommandVariant>1</sr:CommandVariant>", "", "'ServiceReference', expected First"),
        (">4.1.1<", "><sr:a/><", "expected the end of ServiceReferenceVariant"),
        ("  </sr:Header>", "<sr:Extra/></sr:Header>", "expected the end of Header"),
        ("<sr:ServiceReferenceVariant>4.1.1</sr:ServiceReferenceVariant>", "", "expected ServiceReferenceV"),
        (">4.1<", ">4.1x<", "expected a Service Reference, for example 4.1"),
        ("90-B3-D5", "90:B3:D5", "expected an EUI-64, a colon"),
        ("90-B3-D5", "90-B3-G5", "expected an EUI-64, a colon"),
        ('schemaVersion="5.4"', "", "Request has no attribute schemaVersion"),
        ('schemaVersion="5.4"', 'schemaVersion="five"', "expected a decimal"),
        ('schemaVersion="5.4"', 'schemaVersion="5.4" schemaVersion="5.3"', "duplicate attribute"),
        ("ServiceUserGateway", "ServiceUserGateway/", "expected the root element Request in the namespace"),
        ("<sr:RequestID>", '<sr:RequestID xmlns:sr="urn:x">', "expected RequestID"),
        ("</sr:Header>", "</sr:Heade>", "mismatched tag"),
        (">4.1.1<", ">4.1.1" + " " * 300 + "<", "longer than 256 characters"),
        (">4.1.1<", ">&srv;<", "undefined entity"),
    ],
)  # fmt: skip
def test_what_the_schema_does_not_allow_is_refused_saying_what_was_expected(
    found: str, written: str, expected: str
) -> None:
    message = compose().decode()
    assert found in message
    assert expected in str(refused(message.replace(found, written, 1).encode()))


def test_a_refusal_says_at_which_byte() -> None:
    # In UTF-16 with its mark, character n stands at byte 2 + 2 n.
    text = compose("4.1.x", declaration="").decode()
    at = text.index("<sr:ServiceReferenceVariant>")
    assert refused(text.encode()).offset == at
    assert refused(b"\xff\xfe" + text.encode("utf-16-le")).offset == 2 + 2 * at


@pytest.mark.parametrize("message", [b"", b" ", b"<", b"{}", b"\0", b"\xff", b"\xff\xfe", b"GET / HTTP/1.1"])
def test_what_is_no_xml_is_refused(message: bytes) -> None:
    assert refused(message).offset <= len(message)


def test_a_message_cut_anywhere_before_the_end_of_its_header_is_refused() -> None:
    message = compose()
    end = message.index(b"</sr:Header>") + len(b"</sr:Header>")
    for cut in range(end):
        with pytest.raises(DuisError):
            read_header(message[:cut])
    assert read_header(message[:end]) == PLAIN


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1023, 1024, 1025, 4096])
def test_the_parts_a_message_arrives_in_make_no_difference(size: int, learnt: bool) -> None:
    message = compose(size=5_000)
    if learnt:
        read_header(message)
    assert read_header(message[i : i + size] for i in range(0, len(message), size)) == PLAIN


def test_no_more_parts_are_taken_than_the_header_needs() -> None:
    message = compose(size=40_000)
    taken = 0

    def parts() -> Iterator[bytes]:
        nonlocal taken
        for i in range(0, len(message), 512):
            taken += 1
            yield message[i : i + 512]

    assert read_header(parts()) == PLAIN
    assert taken == 2  # the header ends before byte 1,024


def test_what_follows_the_header_is_not_looked_at() -> None:
    end = compose().index(b"</sr:Header>") + len(b"</sr:Header>")
    for rest in (b"", b"<", b"\0\xff", b"</sr:Header>", b"&x;", b"<!DOCTYPE x>" + b" " * 100_000):
        duis.kinds.clear()
        assert read_header(compose()[:end] + rest) == PLAIN
        assert read_header(compose()[:end] + rest) == PLAIN


@pytest.mark.parametrize("learnt", [False, True])
def test_the_header_must_end_within_64_kib(learnt: bool) -> None:
    empty = compose()
    end = empty.index(b"</sr:Header>") + len(b"</sr:Header>")
    fits = compose(before_variant=" " * (LIMIT - end))
    assert fits.index(b"</sr:Header>") + len(b"</sr:Header>") == LIMIT
    if learnt:
        read_header(empty)
    assert read_header(fits) == PLAIN
    error = refused(compose(before_variant=" " * (LIMIT - end + 1)))
    assert str(error) == f"byte {LIMIT}: the header does not end within 65536 bytes"


def test_bytes_bytearrays_and_memoryviews_are_read_alike() -> None:
    message = compose(size=100_000)
    assert read_header(bytearray(message)) == read_header(memoryview(message)) == PLAIN


def test_a_reader_holds_less_than_8_kib_of_a_message() -> None:
    reader = HeaderReader()
    message = compose(in_header="<!--" + "x" * 70_000)

    def feed() -> None:
        for i in range(0, len(message), 100):
            reader.feed(message[i : i + 100])
            assert len(reader._held) < 8_192

    with pytest.raises(DuisError):
        feed()
    assert reader._parser is None


def test_a_complete_reader_takes_what_follows_and_says_the_same() -> None:
    reader = HeaderReader()
    message = compose(size=3_000)
    assert reader.feed(message[:2_000]) == PLAIN
    assert reader.feed(message[2_000:], last=True) == PLAIN


def test_first_bytes_that_are_learnt_stay_within_64_entries() -> None:
    for number in range(1_000):
        read_header(compose(declaration=f"<!-- {number} -->"))
        assert len(duis.kinds) <= 64
