"""The engine's reception of the usual request: the same decisions and counts as with every question asked."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drive import FLOODING, QUIET, active_mechanism, counts_of
from gateway.messages import OTHER_USER, USER, compose
from tmm_core import Config, Mechanism
from tmm_core.gateway import wsgi
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import HttpHeader, environ_name

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


def wsgi_door(*, usual: bool, by_header: bool = True) -> tuple[Mechanism, wsgi.TrafficManagement]:
    """Return a Mechanism and its WSGI middleware, which asks every question where `usual` is False."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if not by_header:
            assert environ["wsgi.input"].read() == environ["body"]
        start_response("200 OK", [])
        return [b"ok"]

    mechanism = active_mechanism()
    made = wsgi.TrafficManagement(app, mechanism, HttpHeader() if by_header else None)
    if not usual:
        made._usual = made._desk.reception(frozenset(), None)
    return mechanism, made


def environ_of(headers: Any, method: str = "POST") -> dict[str, Any]:
    """Return an environ as a server makes it: a header that is there twice comes joined by a comma."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method}
    for name, value in headers:
        key = environ_name(name.decode("latin-1"))
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


def ask_wsgi(middleware: wsgi.TrafficManagement, environ: dict[str, Any]) -> int:
    """Send one request and return its status."""
    started: list[str] = []
    middleware(environ, lambda status, headers: started.append(status))  # type: ignore[arg-type]
    return int(started[0].split()[0])


def answered_at_once(middleware: TrafficManagement, headers: Any) -> Any:
    return middleware._usual.ask({"type": "http", "method": "POST", "headers": headers})


users = st.sampled_from([USER, OTHER_USER, USER.lower(), "00-00-00-00-00-00-00-01", "", "\xe9"])
srvs = st.sampled_from(["4.1.1", "7.4", "99.9", "", "4.1.1 "])
fields = st.one_of(
    st.tuples(st.sampled_from([b"tmm-user", b"TMM-User"]), users.map(str.encode)),
    st.tuples(st.sampled_from([b"tmm-srv", b"tmm-srvs"]), srvs.map(str.encode)),
    st.just((b"accept", b"*/*")),
)


@pytest.mark.parametrize(
    ("header", "user"),
    [(b"Br\xc3\xbccke", "Brücke"), (b"Br\xfccke", "Brücke"), ("BrÃ¼cke".encode(), "BrÃ¼cke")],
)
@pytest.mark.parametrize("usual", [True, False], ids=["quick", "slow"])
def test_a_name_with_letters_beyond_ascii_is_that_users(usual: bool, header: bytes, user: str) -> None:
    """Proxies write UTF-8; ASGI hands on its bytes, WSGI a character for each byte."""
    headers = [(b"tmm-user", "BrÃ¼cke".encode()), (b"tmm-user", header)]
    (one, asgi_door), (other, environ_door) = (
        made(by_header=True, usual=usual) for made in (door, wsgi_door)
    )
    for mechanism in (one, other):
        mechanism.apply(Config(500, 400, allocations={"BrÃ¼cke": 200.0, "Brücke": 200.0}))
    for name in headers * 3:
        request = [name, (b"tmm-srv", b"4.1.1")]
        assert ask(asgi_door, request, b"") == 200
        assert ask_wsgi(environ_door, environ_of(request) | {"wsgi.input": None}) == 200
    for mechanism in (one, other):
        counts = mechanism.snapshot().counts.sum(axis=(1, 2))
        assert counts[mechanism.user("BrÃ¼cke")] == (6 if user == "BrÃ¼cke" else 3)
        assert counts[mechanism.user("Brücke")] == (0 if user == "BrÃ¼cke" else 3)


@given(requests=st.lists(st.lists(fields, max_size=4), max_size=8))
def test_headers_are_decided_and_counted_as_with_every_question_asked(requests: list[Any]) -> None:
    (one, quick), (other, slow) = (door(by_header=True, usual=usual) for usual in (True, False))
    for headers in requests * 2:  # the second time Users and SRVs are known
        assert ask(quick, headers, b"") == ask(slow, headers, b"")
    assert counts_of(one) == counts_of(other)
    assert quick.counts == slow.counts


@given(requests=st.lists(st.lists(fields, max_size=4), max_size=8), method=st.sampled_from(["POST", "GET"]))
def test_an_environ_is_decided_and_counted_as_with_every_question_asked(
    requests: list[Any], method: str
) -> None:
    (one, quick), (other, slow) = (wsgi_door(usual=usual) for usual in (True, False))
    for headers in requests * 2:
        environ = environ_of(headers, method) | {"wsgi.input": None}
        assert ask_wsgi(quick, dict(environ)) == ask_wsgi(slow, dict(environ))
    assert counts_of(one) == counts_of(other)
    assert quick.counts == slow.counts


@given(
    choices=st.lists(st.tuples(st.sampled_from([USER, OTHER_USER]), st.sampled_from(["4.1.1", "7.4"]),
                               st.integers(0, 900), st.sampled_from(["whole", "cut", "spoilt"])), max_size=8)
)  # fmt: skip
def test_messages_are_decided_and_counted_as_with_every_question_asked(choices: list[Any]) -> None:
    (one, quick), (other, slow) = (door(by_header=False, usual=usual) for usual in (True, False))
    third, wsgi_quick = wsgi_door(by_header=False, usual=True)
    for user, srv, at, damage in choices * 2:
        body = compose(user=user, srv=srv)
        if damage == "cut":
            body = body[:at]
        elif damage == "spoilt":
            body = body[:at] + b"<" + body[at + 1 :]
        status = ask(slow, [], body)
        assert ask(quick, [], body) == status
        environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body), "body": body}
        assert ask_wsgi(wsgi_quick, environ_of([]) | environ) == status
    assert counts_of(one) == counts_of(other) == counts_of(third)
    assert quick.counts == slow.counts == wsgi_quick.counts


def test_a_message_of_a_known_kind_is_decided_at_once_and_counted_once() -> None:
    mechanism, middleware = door(by_header=False, usual=True)
    ask_at_once = middleware._usual.ask_body
    assert ask_at_once(compose(user="00-00-00-00-00-00-00-01")) is None  # no User's
    for user, status in ((USER, 200), (OTHER_USER, 503)):
        assert ask(middleware, [], compose(user=user)) == status
    assert ask_at_once(compose(user=USER.lower(), counter=7)) is True
    wait_s, user = ask_at_once(compose(user=OTHER_USER))  # type: ignore[misc]
    assert (wait_s > 0, user) == (True, OTHER_USER)
    assert ask(middleware, [], compose(user=OTHER_USER)) == 503  # decided at once, and not once more
    assert counts_of(mechanism) == {QUIET: {"WITHIN_ALLOCATION": 2}, FLOODING: {"THROTTLED": 3}}
    for unusual in (compose(srv="99.9"), b"", None, "text", bytearray(compose())):
        assert ask_at_once(unusual) is None  # type: ignore[arg-type]
    assert ask_at_once(compose()) is True


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
    assert ask(middleware, headers, b"") == 503  # decided at once, and not once more
    assert counts_of(mechanism) == {FLOODING: {"THROTTLED": 3}}


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


HEADERS = [(b"tmm-user", USER.encode()), (b"tmm-srv", b"4.1.1")]
HTTP = {"type": "http", "method": "POST", "headers": HEADERS}


def test_the_usual_environ_is_decided_at_once_and_what_is_not_usual_is_left_to_others() -> None:
    mechanism, middleware = wsgi_door(usual=True)
    environ = environ_of(HEADERS)
    ask_at_once = middleware._usual.ask_environ
    assert ask_at_once(environ) is None  # nobody knows it yet
    assert ask_wsgi(middleware, environ) == 200
    assert ask_at_once(environ) is True
    flooding = environ | {"HTTP_TMM_USER": OTHER_USER}
    assert ask_wsgi(middleware, flooding) == 503
    wait_s, user = ask_at_once(flooding)  # type: ignore[misc]
    assert (wait_s > 0, user) == (True, OTHER_USER)
    assert ask_wsgi(middleware, flooding) == 503  # decided at once, and not once more
    before = counts_of(mechanism)
    for unusual in (
        environ | {"REQUEST_METHOD": "GET"},
        environ | {"HTTP_TMM_USER": f"{USER},{USER}"},
        environ | {"HTTP_TMM_USER": USER.encode()},
        {"REQUEST_METHOD": "POST", "HTTP_TMM_USER": USER},
        {"REQUEST_METHOD": "POST"},
        {},
        None,
    ):
        assert ask_at_once(unusual) is None
    assert counts_of(mechanism) == before == {QUIET: {"WITHIN_ALLOCATION": 2}, FLOODING: {"THROTTLED": 3}}
    mechanism.close()
    assert ask_wsgi(middleware, environ) == 200
    assert middleware.counts.fail_open == 1


# --- what is kept of headers that have been read before


def test_what_is_kept_of_a_header_follows_a_new_configuration() -> None:
    mechanism, middleware = door(by_header=True, usual=True)
    for _ in range(2):
        assert ask(middleware, HEADERS, b"") == 200
    settings: dict[str, Any] = {
        "sharing": "none",
        "hold_s": 3_600,
        "allocations": {QUIET: 300.0, FLOODING: 0.0},
    }
    mechanism.apply(Config(500, 400, user_ids={USER: FLOODING, OTHER_USER: QUIET}, **settings))
    assert answered_at_once(middleware, HEADERS) is None  # the gate has to look up whose it is now
    assert ask(middleware, HEADERS, b"") == 503
    wait_s, user = answered_at_once(middleware, HEADERS)
    assert (wait_s > 0, user) == (True, USER)
    assert counts_of(mechanism) == {QUIET: {"WITHIN_ALLOCATION": 2}, FLOODING: {"THROTTLED": 2}}


def test_a_gate_that_the_desk_has_let_go_is_replaced() -> None:
    mechanism, middleware = door(by_header=True, usual=True)
    assert ask(middleware, HEADERS, b"") == 200
    assert answered_at_once(middleware, HEADERS) is True
    middleware._desk._gates.clear()
    mechanism.apply(mechanism.config)
    assert ask(middleware, HEADERS, b"") == 200  # the old gate cannot decide, the desk makes another
    assert answered_at_once(middleware, HEADERS) is True


@pytest.mark.parametrize("key", ["type", "method", "headers"])
def test_a_scope_with_a_key_that_cannot_be_compared_is_left_to_others(key: str) -> None:
    class Odd:
        def __hash__(self) -> int:
            return hash(key)

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    _, middleware = door(by_header=True, usual=True)
    assert ask(middleware, HEADERS, b"") == 200
    scope: dict[Any, Any] = {Odd(): 1}
    scope |= {name: value for name, value in HTTP.items() if name != key}
    assert middleware._usual.ask(scope) is None


# --- the entrance: an ASGI application without a coroutine of its own


def test_the_usual_request_meets_no_coroutine_of_ours() -> None:
    made: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

    def remembering(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        made.append(app(scope, receive, send))
        return made[-1]  # type: ignore[no-any-return]

    middleware = TrafficManagement(remembering, active_mechanism(), HttpHeader())
    assert ask(middleware, HEADERS, b"") == 200
    returned: Any = middleware({"type": "http", "method": "POST", "headers": HEADERS}, None, None)
    assert returned is made[-1]
    returned.close()


def test_who_asks_whether_it_is_a_coroutine_function_is_told_so() -> None:
    """uvicorn and hypercorn ask, by the attribute; to what says no they speak ASGI 2, or WSGI."""
    _, middleware = door(by_header=True, usual=True)
    assert inspect.iscoroutinefunction(middleware.__call__)
    assert inspect.iscoroutinefunction(TrafficManagement(middleware, active_mechanism()).__call__)


def test_the_attribute_called_gives_what_the_middleware_gives() -> None:
    mechanism, middleware = door(by_header=True, usual=True)
    calls: Any = middleware.__call__
    for _ in range(2):
        assert ask(calls, HEADERS, b"") == 200
    assert counts_of(mechanism) == {QUIET: {"WITHIN_ALLOCATION": 2}}


def test_a_middleware_made_of_it_is_asked_by_call_and_by_attribute() -> None:
    seen: list[str] = []

    class Watched(TrafficManagement):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])
            await super().__call__(scope, receive, send)

    _, middleware = door(by_header=True, usual=True)
    watched = Watched(middleware, active_mechanism(), HttpHeader())
    for entrance in (watched, watched.__call__):
        assert ask(entrance, HEADERS, b"") == 200  # type: ignore[arg-type]
    assert seen == ["http", "http"]


def test_an_application_that_fails_at_its_call_fails_there() -> None:
    def app(scope: Any, receive: Any, send: Any) -> Any:
        raise ZeroDivisionError

    middleware = TrafficManagement(app, active_mechanism(), HttpHeader())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            ask(middleware, HEADERS, b"")
    assert middleware.counts.fail_open == 0
