"""Who is charged: what the connection knows wins, and what is only written down does not."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest

from gateway.drive import FLOODING, PRIORITY_SRV, QUIET, active_mechanism, both, counts_of, post
from gateway.messages import OTHER_USER, USER, compose
from tmm_core.gateway import desk
from tmm_core.gateway.identify import (
    AmbiguousIdentityError,
    ClientCertificate,
    HttpHeader,
    Identity,
    subject_attribute,
)


@both
def test_http_headers_identify_user_and_srv_and_the_body_is_not_read(door: str) -> None:
    mechanism = active_mechanism()
    headers = [("TMM-User", FLOODING), ("TMM-SRV", "4.1.1")]
    assert post(door, mechanism, b"no DUIS", headers, identify=HttpHeader()).status == 503
    reply = post(door, mechanism, b"no DUIS", [headers[0], ("TMM-SRV", PRIORITY_SRV)], identify=HttpHeader())
    assert (reply.status, reply.received) == (200, b"no DUIS")


@both
def test_without_the_srv_header_the_body_says_which_it_is(door: str) -> None:
    headers = [("TMM-User", FLOODING)]
    reply = post(
        door, active_mechanism(), compose(PRIORITY_SRV, user=OTHER_USER), headers, identify=HttpHeader()
    )
    assert reply.status == 200


@both
def test_a_header_that_disagrees_is_charged_to_the_connections_user_and_raises_an_event(
    door: str, caplog: pytest.LogCaptureFixture
) -> None:
    mechanism = active_mechanism()
    events: list[desk.GatewayEvent] = []
    headers = [("TMM-User", FLOODING)]
    options: dict[str, Any] = {"identify": HttpHeader(), "on_event": events.append}
    with caplog.at_level(logging.INFO, "tmm_core.gateway"):
        # The flooding User writes the EUI-64 of the quiet one.
        assert post(door, mechanism, compose(user=USER), headers, **options).status == 503
    assert counts_of(mechanism) == {FLOODING: {"THROTTLED": 1}}
    assert [(event.kind, event.count) for event in events] == [("identity_disagrees", 1)]
    assert USER in events[0].message
    assert FLOODING in events[0].message
    assert "identity_disagrees" in caplog.text


@both
def test_another_identifier_of_the_same_user_is_no_disagreement(door: str) -> None:
    second = "90-B3-D5-1F-30-01-00-01"
    mechanism = active_mechanism(user_ids={USER: QUIET, second: QUIET, OTHER_USER: FLOODING})
    events: list[desk.GatewayEvent] = []
    options: dict[str, Any] = {"identify": HttpHeader(), "on_event": events.append}
    reply = post(door, mechanism, compose(user=second), [("TMM-User", USER.lower())], **options)
    assert (reply.status, events) == (200, [])


@both
@pytest.mark.parametrize("fall_back", [False, True])
def test_a_connection_without_identity_is_an_unknown_user_unless_the_header_may_say(
    door: str, fall_back: bool
) -> None:
    for source in (HttpHeader(fall_back=fall_back), ClientCertificate(fall_back=fall_back)):
        mechanism = active_mechanism()
        post(door, mechanism, compose(user=USER), identify=source)
        expected = {QUIET: {"WITHIN_ALLOCATION": 1}} if fall_back else {"(unknown)": {"THROTTLED": 1}}
        assert counts_of(mechanism) == expected


def test_two_user_headers_make_an_unknown_user_whatever_they_say() -> None:
    for headers in (
        [("TMM-User", QUIET), ("TMM-User", QUIET), ("TMM-SRV", "4.1.1")],
        [("TMM-User", QUIET), ("TMM-SRV", "4.1.1"), ("TMM-SRV", PRIORITY_SRV)],
        [("TMM-User", ""), ("TMM-User", QUIET), ("TMM-SRV", "4.1.1")],
    ):
        mechanism = active_mechanism()
        events: list[desk.GatewayEvent] = []
        post("asgi", mechanism, b"", headers, identify=HttpHeader(), on_event=events.append)
        assert counts_of(mechanism) == {"(unknown)": {"THROTTLED": 1}}
        assert events[0].kind == "identity_ambiguous"
    # A WSGI server joins them by a comma: nobody is called that.
    mechanism = active_mechanism()
    post(
        "wsgi",
        mechanism,
        b"",
        [("TMM-User", f"{QUIET},{QUIET}"), ("TMM-SRV", "4.1.1")],
        identify=HttpHeader(),
    )
    assert counts_of(mechanism) == {"(unknown)": {"THROTTLED": 1}}


@both
def test_a_client_certificate_identifies_the_user_by_the_server_or_by_a_proxy(door: str) -> None:
    subject = f"CN={FLOODING},O=x"
    if door == "asgi":
        verified: dict[str, Any] = {
            "extensions": {"tls": {"client_cert_name": subject, "client_cert_error": None}}
        }
        failed: dict[str, Any] = {
            "extensions": {"tls": {"client_cert_name": subject, "client_cert_error": "expired"}}
        }
    else:
        verified = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": subject}
        failed = {"SSL_CLIENT_VERIFY": "FAILED:expired", "SSL_CLIENT_S_DN": subject}
    by_proxy = [("X-SSL-Client-S-DN", subject), ("X-SSL-Client-Verify", "SUCCESS")]
    proxy = ClientCertificate(header="X-SSL-Client-S-DN", verified="X-SSL-Client-Verify")
    unverified = [("X-SSL-Client-S-DN", subject), ("X-SSL-Client-Verify", "NONE")]
    for extra, headers, source, charged in (
        (verified, [], ClientCertificate(), FLOODING),
        (failed, [], ClientCertificate(), "(unknown)"),
        (None, [], ClientCertificate(), "(unknown)"),
        (None, by_proxy, proxy, FLOODING),
        (None, unverified, proxy, "(unknown)"),
        # Without the proxy's header nothing is believed, not even what the server says.
        (verified, [], proxy, "(unknown)"),
    ):
        mechanism = active_mechanism()
        post(door, mechanism, compose(user=USER), headers, extra=extra, identify=source)
        assert counts_of(mechanism) == {charged: {"THROTTLED": 1}}, (extra, headers)


def test_gunicorns_socket_tells_the_client_certificate() -> None:
    class Socket:
        def getpeercert(self) -> dict[str, Any]:
            return {"subject": ((("organizationName", "x"),), (("commonName", FLOODING),))}

    mechanism = active_mechanism()
    extra = {"gunicorn.socket": Socket()}
    post("wsgi", mechanism, compose(user=USER), extra=extra, identify=ClientCertificate())
    assert counts_of(mechanism) == {FLOODING: {"THROTTLED": 1}}


@both
def test_identify_may_be_any_function(door: str) -> None:
    mechanism = active_mechanism()
    assert post(door, mechanism, b"x", identify=lambda request: Identity(FLOODING, "4.1.1")).status == 503

    def two(request: Any) -> Identity:
        raise AmbiguousIdentityError("two of them")

    post(door, mechanism, compose(user=USER), identify=two)
    assert counts_of(mechanism) == {FLOODING: {"THROTTLED": 1}, "(unknown)": {"THROTTLED": 1}}


# --- the subject of a certificate


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("CN=90-B3-D5-1F-30-01-00-00", "90-B3-D5-1F-30-01-00-00"),
        ("O=N,cn=A", "A"),
        ("O=N + CN=A,C=GB", "A"),
        (" CN = A ,C=GB", "A"),
        (r"O=a\,CN\=B,CN=A", "A"),
        (r"O=a\2cCN=B,CN=A", "A"),
        (r"CN=A\2c B\c3\bc", "A, Bü"),
        ("2.5.4.3=A", None),
        ("CN=", ""),
        ("O=N", None),
        ("CN", None),
        ("", None),
        ("CN=A,", None),
        ("CN=A\\", None),
        ('CN="A"', None),
        ("CN=" + "A" * 5_000, None),
        ('By=spiffe://x;Hash=00;Subject="CN=A,O=N"', "A"),
        (r'Subject="O=\"N\;\",CN=B\",CN=A"', None),
        ("By=spiffe://x;Hash=00", None),
        ('Hash=00;Subject="CN=A', None),
    ],
)
def test_an_attribute_is_taken_from_a_subject_or_nothing_is(subject: str, expected: str | None) -> None:
    assert subject_attribute(subject, "CN") == expected


def test_an_attribute_may_be_named_by_number() -> None:
    assert subject_attribute("CN=B,2.5.4.45=A", "2.5.4.45") == "A"


@pytest.mark.parametrize(
    "subject",
    [
        "CN=A,CN=B",
        "CN=A+CN=A",
        'Subject="CN=A",Subject="CN=B"',
        'Subject="CN=A",Hash=00',  # the second certificate says no name, and is there
        'Hash=00,Subject="CN=A"',
        'Subject="CN=A";Subject="CN=B"',
    ],
)
def test_two_names_are_no_name(subject: str) -> None:
    with pytest.raises(AmbiguousIdentityError):
        subject_attribute(subject, "CN")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["\\ab", "\\", "CN=", " ", "+", "1.", 'Subject="\\', ";", "\\ab\\"])
def test_no_subject_takes_long_to_read(piece: str) -> None:
    subject = "CN=" + (piece * 2_048)[:2_044] + "\\"
    with suppress(AmbiguousIdentityError):  # a pattern that goes back would take 2^1,000 steps
        subject_attribute(subject, "CN")
