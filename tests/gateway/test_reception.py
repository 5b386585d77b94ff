"""The engine's reception of the usual request: the same decisions and counts as with every question asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drive import FLOODING, QUIET, active_mechanism, counts_of
from gateway.messages import OTHER_USER, USER, compose
from tmm_core import Mechanism
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import HttpHeader

START = {"type": "http.response.start", "status": 200, "headers": []}


def door(*, by_header: bool, usual: bool) -> tuple[Mechanism, TrafficManagement]:
    """Return a Mechanism and its middleware, which asks every question where `usual` is False."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await send(START)
        await send({"type": "http.response.body", "body": b"ok"})

    mechanism = active_mechanism()
    made = TrafficManagement(app, mechanism, HttpHeader() if by_header else None)
    if not usual:
        made._usual = made._desk.reception(frozenset(), None)
    return mechanism, made


def ask(middleware: TrafficManagement, headers: Any, body: bytes, method: str = "POST") -> int:
    """Send one request and return its status."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/", "headers": headers}
    asyncio.run(middleware(scope, receive, send))
    return int(sent[0]["status"])


def answered_at_once(middleware: TrafficManagement, headers: Any) -> Any:
    return middleware._usual.ask({"type": "http", "method": "POST", "headers": headers})


users = st.sampled_from([USER, OTHER_USER, USER.lower(), "00-00-00-00-00-00-00-01", "", "\xe9"])
srvs = st.sampled_from(["4.1.1", "7.4", "99.9", "", "4.1.1 "])
fields = st.one_of(
    st.tuples(st.sampled_from([b"tmm-user", b"TMM-User"]), users.map(lambda text: text.encode("latin-1"))),
    st.tuples(st.sampled_from([b"tmm-srv", b"tmm-srvs"]), srvs.map(str.encode)),
    st.just((b"accept", b"*/*")),
)


@given(requests=st.lists(st.lists(fields, max_size=4), max_size=8))
def test_headers_are_decided_and_counted_as_with_every_question_asked(requests: list[Any]) -> None:
    (one, quick), (other, slow) = (door(by_header=True, usual=usual) for usual in (True, False))
    for headers in requests * 2:  # the second time Users and SRVs are known
        assert ask(quick, headers, b"") == ask(slow, headers, b"")
    assert counts_of(one) == counts_of(other)
    assert quick.counts == slow.counts


@given(
    choices=st.lists(st.tuples(st.sampled_from([USER, OTHER_USER]), st.sampled_from(["4.1.1", "7.4"]),
                               st.integers(0, 900), st.sampled_from(["whole", "cut", "spoilt"])), max_size=8)
)  # fmt: skip
def test_messages_are_decided_and_counted_as_with_every_question_asked(choices: list[Any]) -> None:
    (one, quick), (other, slow) = (door(by_header=False, usual=usual) for usual in (True, False))
    for user, srv, at, damage in choices * 2:
        body = compose(user=user, srv=srv)
        if damage == "cut":
            body = body[:at]
        elif damage == "spoilt":
            body = body[:at] + b"<" + body[at + 1 :]
        assert ask(quick, [], body) == ask(slow, [], body)
    assert counts_of(one) == counts_of(other)
    assert quick.counts == slow.counts


def test_the_usual_request_is_decided_at_once_and_counted_once() -> None:
    mechanism, middleware = door(by_header=True, usual=True)
    headers = [(b"tmm-user", USER.encode()), (b"tmm-srv", b"4.1.1")]
    assert answered_at_once(middleware, headers) is None  # nobody knows it yet
    assert ask(middleware, headers, b"") == 200
    assert answered_at_once(middleware, headers) is True
    assert counts_of(mechanism) == {QUIET: {"WITHIN_ALLOCATION": 2}}


def test_a_throttled_request_gets_its_retry_slot_and_its_user() -> None:
    mechanism, middleware = door(by_header=True, usual=True)
    headers = [(b"tmm-user", OTHER_USER.encode()), (b"tmm-srv", b"4.1.1")]
    assert ask(middleware, headers, b"") == 503
    wait_s, user = answered_at_once(middleware, headers)
    assert wait_s > 0
    assert user == OTHER_USER
    assert counts_of(mechanism) == {FLOODING: {"THROTTLED": 2}}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"tmm-user", USER.encode())], id="no SRV"),
        pytest.param([(b"tmm-user", USER.encode())] * 2 + [(b"tmm-srv", b"4.1.1")], id="two Users"),
        pytest.param([(b"tmm-user", USER.encode())] + [(b"tmm-srv", b"4.1.1")] * 2, id="two SRVs"),
        pytest.param([(b"tmm-user", USER), (b"tmm-srv", b"4.1.1")], id="text"),
        pytest.param([(b"tmm-user", USER.encode(), b""), (b"tmm-srv", b"4.1.1")], id="triple"),
        pytest.param(((b"tmm-user", USER.encode()), (b"tmm-srv", b"4.1.1")), id="tuple"),
        pytest.param(None, id="none"),
    ],
)
def test_what_is_not_usual_is_left_to_others_with_nothing_written(headers: Any) -> None:
    mechanism, middleware = door(by_header=True, usual=True)
    assert ask(middleware, [(b"tmm-user", USER.encode()), (b"tmm-srv", b"4.1.1")], b"") == 200
    before = counts_of(mechanism)
    assert answered_at_once(middleware, headers) is None
    assert counts_of(mechanism) == before


def test_where_the_gate_fails_the_request_is_admitted_and_shouted_about() -> None:
    mechanism, middleware = door(by_header=True, usual=True)
    headers = [(b"tmm-user", USER.encode()), (b"tmm-srv", b"4.1.1")]
    assert ask(middleware, headers, b"") == 200
    mechanism.close()
    assert answered_at_once(middleware, headers) is None
    assert ask(middleware, headers, b"") == 200
    assert middleware.counts.fail_open == 1
