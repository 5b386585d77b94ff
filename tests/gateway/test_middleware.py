"""Both middlewares: who is charged, what a throttled User gets, and what the application gets."""

from __future__ import annotations

import asyncio
import io
import json
import random
import subprocess
import sys
import tracemalloc
from typing import Any
from xml.etree import ElementTree

import pytest

from gateway.drive import (
    FLOODING,
    PRIORITY_SRV,
    QUIET,
    active_mechanism,
    asgi_app,
    both,
    counts_of,
    post,
    post_asgi,
    wsgi_app,
)
from gateway.messages import OTHER_USER, compose
from tmm_core.gateway import answer, asgi, duis, wsgi
from tmm_core.gateway.identify import HttpHeader
from tmm_core.gateway.wsgi import WsgiInput


@both
def test_the_user_in_the_duis_header_is_charged_and_the_application_gets_every_byte(door: str) -> None:
    mechanism = active_mechanism()
    message = compose(size=5_000)
    reply = post(door, mechanism, message)
    assert (reply.status, reply.body) == (200, b"from the application")
    assert reply.received == message
    assert counts_of(mechanism) == {QUIET: {"WITHIN_ALLOCATION": 1}}


@both
def test_a_throttled_user_gets_503_and_the_application_is_not_called(door: str) -> None:
    mechanism = active_mechanism()
    reply = post(door, mechanism, compose(user=OTHER_USER))
    assert reply.status == 503
    assert reply.received is None
    assert reply.headers["tmm-decision"] == "THROTTLED"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert (reply.headers["cache-control"], reply.headers["vary"]) == ("no-store", "Accept")
    assert counts_of(mechanism) == {FLOODING: {"THROTTLED": 1}}


@both
def test_a_priority_request_is_never_throttled(door: str) -> None:
    reply = post(door, active_mechanism(), compose(PRIORITY_SRV, user=OTHER_USER))
    assert reply.status == 200


@both
def test_retry_after_is_the_retry_slot_rounded_up(door: str) -> None:
    # 1 unit in 64 s and a burst of a second: the first is admitted, the next slots are 64 s and 128 s away.
    mechanism = active_mechanism(allocations={QUIET: 300.0, FLOODING: 1 / 64})
    assert post(door, mechanism, compose(user=OTHER_USER)).status == 200
    for turn in (1, 2):
        headers = post(door, mechanism, compose(user=OTHER_USER)).headers
        wait_ms = int(headers["tmm-retry-after-ms"])
        # From its retry slot a second of burst may be taken off, and what the test took; never added.
        assert 64_000 * turn - 30_000 < wait_ms <= 64_000 * turn
        assert int(headers["retry-after"]) == -(-wait_ms // 1_000)


@pytest.mark.parametrize(
    ("wait_s", "ms", "seconds"),
    [
        (0.0, 1, 1),
        (0.0004, 1, 1),
        (0.9991, 1_000, 1),
        (1.0001, 1_001, 2),
        (2.0, 2_000, 2),
        (300.0, 300_000, 300),
    ],
)
def test_the_wait_is_never_rounded_down(wait_s: float, ms: int, seconds: int) -> None:
    headers = dict(answer.throttled(wait_s, None)[0])
    assert (headers["TMM-Retry-After-Ms"], headers["Retry-After"]) == (str(ms), str(seconds))


@both
@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/problem+xml"),
        ("*/*", "application/problem+xml"),
        ("application/xml", "application/xml"),
        ("text/xml, application/json;q=0.9", "text/xml"),
        ("application/json", "application/json"),
        ("application/problem+json", "application/problem+json"),
        ("application/*;q=0.2, application/problem+json", "application/problem+json"),
        ("application/problem+xml;q=0, application/*", "application/xml"),
        ("image/png", "application/problem+xml"),
        ("application/json;q=2, ;;;, text/xml;q=x, a", "application/problem+xml"),
        ("image/png;q=1,application/problem+json;q=0.0001", "application/problem+json"),
        ("x" * 100_000, "application/problem+xml"),
    ],
)
def test_the_body_of_a_503_is_xml_or_json_as_accepted_and_says_not_processed(
    door: str, accept: str | None, media_type: str
) -> None:
    headers = [] if accept is None else [("Accept", accept)]
    reply = post(door, active_mechanism(), compose(user=OTHER_USER), headers)
    assert reply.headers["content-type"] == media_type
    if media_type.endswith("json"):
        problem = json.loads(reply.body)
    else:
        root = ElementTree.fromstring(reply.body)
        assert root.tag == "{urn:ietf:rfc:7807}problem"
        problem = {child.tag.rpartition("}")[2]: child.text for child in root}
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
    assert str(problem["status"]) == "503"
    assert problem["processed"] in (False, "false")
    assert problem["decision"] == "THROTTLED"
    assert str(problem["retry-after-ms"]) == reply.headers["tmm-retry-after-ms"]
    assert "not processed" in problem["detail"]


@both
def test_accept_in_two_headers_counts_as_one_list(door: str) -> None:
    # A WSGI server joins them by a comma.
    pair = [("Accept", "image/png"), ("Accept", "application/json")]
    headers = pair if door == "asgi" else [("Accept", "image/png,application/json")]
    reply = post(door, active_mechanism(), compose(user=OTHER_USER), headers)
    assert reply.headers["content-type"] == "application/json"


@both
def test_rate_limit_fields_are_sent_only_if_asked_for(door: str) -> None:
    mechanism = active_mechanism(allocations={QUIET: 300.0, FLOODING: 2.5})
    message = compose(user=OTHER_USER)
    replies = [post(door, mechanism, message) for _ in range(10)]
    assert {reply.status for reply in replies} == {200, 503}
    assert not any("ratelimit" in name for reply in replies for name in reply.headers)
    headers = post(door, mechanism, message, rate_limit_fields=True).headers
    # 2.5 units per second are 5 whole units in 2 whole seconds.
    assert headers["ratelimit-policy"] == '"allocation";q=5;w=2'
    assert headers["ratelimit"] == f'"allocation";r=0;t={headers["retry-after"]}'


@both
def test_a_user_without_allocation_gets_no_rate_limit_fields(door: str) -> None:
    headers = post(door, active_mechanism(), compose(user=OTHER_USER), rate_limit_fields=True).headers
    assert not any("ratelimit" in name for name in headers)


# --- bodies


@both
def test_a_body_that_is_no_duis_is_charged_passed_or_refused_as_configured(door: str) -> None:
    mechanism = active_mechanism(unknown_allocation=50.0)
    reply = post(door, mechanism, b"<other/>")
    assert (reply.status, reply.received) == (200, b"<other/>")
    assert counts_of(mechanism) == {"(unknown)": {"WITHIN_ALLOCATION": 1}}
    # By default it may be throttled like any other request; of a connection's User too.
    assert post(door, mechanism, b"x", [("TMM-User", FLOODING)], identify=HttpHeader()).status == 503

    mechanism = active_mechanism()
    reply = post(door, mechanism, b"<other/>", not_duis="pass")
    assert (reply.status, reply.received) == (200, b"<other/>")
    reply = post(door, mechanism, b"<other/>", [("Accept", "application/json")], not_duis="refuse")
    assert (reply.status, reply.received) == (400, None)
    assert "byte 0: found the root element" in json.loads(reply.body)["detail"]
    assert "tmm-decision" not in reply.headers
    assert reply.headers["vary"] == "Accept"
    assert counts_of(mechanism) == {}
    with pytest.raises(ValueError, match="not_duis 'drop' must be"):
        post(door, mechanism, not_duis="drop")


@both
def test_other_methods_pass_through_uncharged(door: str) -> None:
    mechanism = active_mechanism()
    assert post(door, mechanism, compose(user=OTHER_USER), method="GET").status == 200
    assert counts_of(mechanism) == {}
    assert post(door, mechanism, compose(user=OTHER_USER), method="PUT", methods=("PUT",)).status == 503


def test_websocket_and_lifespan_pass_through() -> None:
    called: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append((scope, receive, send))

    middleware = asgi.TrafficManagement(app, active_mechanism())
    for kind in ("websocket", "lifespan"):
        scope: Any = {"type": kind}
        asyncio.run(middleware(scope, "receive", "send"))  # type: ignore[arg-type]
        assert called.pop() == (scope, "receive", "send")


@both
@pytest.mark.parametrize("size", [1, 7, 1_023, 1_024, 1_025, 2_048, 4_096, 100_000])
@pytest.mark.parametrize("learnt", [True, False])
def test_a_body_in_parts_is_handed_on_unchanged(door: str, size: int, learnt: bool) -> None:
    message = compose(size=20_000)
    duis.kinds.clear()
    if learnt:
        duis.read_header(message)
    parts = [message[i : i + size] for i in range(0, len(message), size)]
    reply = post(door, active_mechanism(), parts)
    assert reply.received == message
    # And streaming: what is behind the header comes as it would have come.
    if door == "asgi" and size >= 1_024:
        assert reply.parts == parts


@both
@pytest.mark.parametrize("size", [100, 3_000, 50_000])
def test_a_body_whose_header_comes_late_is_handed_on_unchanged(door: str, size: int) -> None:
    """More than the first piece is read before User and SRV are known, and given back."""
    message = compose(declaration=f"<!--{'x' * size}-->", size=size + 5_000)
    mechanism = active_mechanism()
    for parts in ([message], [message[i : i + 700] for i in range(0, len(message), 700)]):
        reply = post(door, mechanism, parts)
        assert (reply.status, reply.received) == (200, message)
    assert counts_of(mechanism) == {QUIET: {"WITHIN_ALLOCATION": 2}}


def test_an_empty_last_part_is_not_lost() -> None:
    """A body shorter than what expat reads at once, and its end in a message of its own."""
    message = compose()
    assert len(message) < 1_024
    duis.kinds.clear()
    reply = post("asgi", active_mechanism(), [message, b""])
    assert reply.received == message


@both
def test_only_as_much_of_a_body_is_read_as_the_header_needs(door: str) -> None:
    message = compose(user=OTHER_USER, size=50_000)
    taken = 0

    if door == "asgi":

        async def receive() -> Any:
            nonlocal taken
            taken += 1
            return {
                "type": "http.request",
                "body": message[1_000 * (taken - 1) : 1_000 * taken],
                "more_body": True,
            }

        async def send(event: Any) -> None:
            pass

        middleware = asgi.TrafficManagement(asgi_app([]), active_mechanism())
        asyncio.run(middleware({"type": "http", "method": "POST", "headers": []}, receive, send))
        assert taken <= 2
    else:

        class Input:
            def read(self, size: int) -> bytes:
                nonlocal taken
                taken += size
                return message[taken - size : taken]

        app = wsgi.TrafficManagement(wsgi_app([]), active_mechanism())
        environ = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(message)), "wsgi.input": Input()}
        app(environ, lambda *_: None)  # type: ignore[arg-type]
        assert taken == 2_048


def test_what_a_wsgi_application_may_do_with_its_input_gives_what_it_gave_before(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(200):
        message = compose(size=chance.choice([600, 3_000, 9_000])).replace(b" " * 20, b"\n" * 20)
        terminated = chance.random() < 0.5
        calls = [
            (
                chance.choice(["read", "readline", "readlines", "next"]),
                chance.choice([-1, None, 0, 1, 60, 5_000]),
            )
            for _ in range(6)
        ]

        def use(source: Any, calls: Any = calls) -> list[Any]:
            answers: list[Any] = []
            for name, size in calls:
                if name == "next":
                    answers.append(next(iter(source), b""))
                else:
                    answers.append(getattr(source, name)() if size == -1 else getattr(source, name)(size))
            answers.append(source.read())
            return answers

        got: list[Any] = []

        def app(environ: Any, start_response: Any, got: list[Any] = got) -> list[bytes]:
            got.extend(use(environ["wsgi.input"]))
            start_response("200 OK", [])
            return []

        # Behind the body of one request stand the bytes of the next: they are not ours.
        source = io.BytesIO(message if terminated else message + b"POST / HTTP/1.1\n")
        environ: Any = {"REQUEST_METHOD": "POST", "wsgi.input": source}
        environ |= {"wsgi.input_terminated": True} if terminated else {"CONTENT_LENGTH": str(len(message))}
        wsgi.TrafficManagement(app, active_mechanism())(environ, lambda *_: None)  # type: ignore[arg-type,return-value]
        assert got == use(io.BytesIO(message))


@pytest.mark.parametrize("length", ["", "x", "-5"])
def test_a_request_without_a_usable_length_has_no_body(length: str) -> None:
    reply = post("wsgi", active_mechanism(), compose(), extra={"CONTENT_LENGTH": length})
    assert reply.status == 503  # an unknown User's


def test_a_user_that_goes_before_its_header_is_complete_is_not_decided_on() -> None:
    mechanism = active_mechanism()
    called: list[bytes] = []
    middleware = asgi.TrafficManagement(asgi_app(called), mechanism)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(middleware({"type": "http", "method": "POST", "headers": []}, receive, None))  # type: ignore[arg-type]
    assert (called, counts_of(mechanism)) == ([], {})


def test_what_follows_the_body_is_handed_on_too() -> None:
    after: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        after.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    post_asgi(asgi.TrafficManagement(app, active_mechanism()), [compose()])
    assert after == ["http.disconnect"]


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_no_framework_is_imported(door: str) -> None:
    """Beside NumPy, which the Mechanism needs, only Python's own modules."""

    def loaded_by(module: str) -> set[str]:
        code = f"import sys, {module}; print(*(name.partition('.')[0] for name in sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return {name for name in done.stdout.split() if not name.startswith(("_", "cython"))}

    others = loaded_by(f"tmm_core.gateway.{door}") - loaded_by("numpy") - sys.stdlib_module_names
    assert others == {"tmm_core"}


# --- memory


@both
@pytest.mark.parametrize("size", [8, 1_000, 65_536])
def test_a_body_without_a_header_holds_less_than_400_kb(door: str, size: int) -> None:
    """However slowly it comes: 64 KiB are looked at, and no more of a body is held than that."""
    comment = compose(in_header="<!--" + "x" * 70_000).split(b"<sr:RequestID>")[0]
    mechanism = active_mechanism()
    read = 0

    def part(wanted: int) -> bytes:
        nonlocal read
        read += wanted
        return comment[read - wanted : read].ljust(wanted, b"x")

    async def receive() -> Any:
        return {"type": "http.request", "body": part(size), "more_body": True}

    async def ignore(event: Any) -> None:
        pass

    class Input:
        def read(self, wanted: int) -> bytes:
            return part(min(size, wanted))

    def run() -> None:
        nonlocal read
        read = 0
        scope: Any = {"type": "http", "method": "POST", "headers": []}
        environ: Any = {"REQUEST_METHOD": "POST", "wsgi.input": Input(), "wsgi.input_terminated": True}
        if door == "asgi":
            asyncio.run(asgi.TrafficManagement(asgi_app([]), mechanism)(scope, receive, ignore))
        else:
            wsgi.TrafficManagement(wsgi_app([]), mechanism)(environ, lambda *_: None)  # type: ignore[arg-type]

    run()
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 65_536 <= read <= 65_536 + max(size, 2_048)
    assert peak < 400_000


@pytest.mark.parametrize("terminated", [True, False])
def test_a_line_read_over_the_end_of_what_was_held_is_no_longer_than_asked(terminated: bool) -> None:
    body = b"x" * 5_000
    environ: Any = {"wsgi.input": io.BytesIO(body)}
    environ |= {"wsgi.input_terminated": True} if terminated else {"CONTENT_LENGTH": str(len(body))}
    source = WsgiInput(environ)
    assert source.begin() == body[:2_048]
    assert source.read(2_000) == body[:2_000]
    assert source.readline(60) == body[:60], "48 bytes that were held, and 12 more"
