"""What must be noticed: a Mechanism that cannot decide, identities that disagree; and memory stays constant."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
import tracemalloc
import warnings
from typing import Any

import pytest

from gateway.drive import FLOODING, QUIET, active_mechanism, both, post, post_asgi, post_wsgi
from gateway.messages import OTHER_USER, USER, compose
from tmm_core import Config
from tmm_core.gateway import asgi, desk, wsgi
from tmm_core.gateway.identify import ClientCertificate, HttpHeader, Texts, header_text


@both
def test_where_the_mechanism_cannot_decide_the_request_is_admitted_counted_and_shouted_about(
    door: str, caplog: pytest.LogCaptureFixture
) -> None:
    mechanism = active_mechanism()
    mechanism.close()
    events: list[desk.GatewayEvent] = []
    message = compose(user=OTHER_USER)
    with caplog.at_level(logging.CRITICAL, "tmm_core.gateway"):
        reply = post(door, mechanism, message, on_event=events.append)
    assert (reply.status, reply.received) == (200, message)
    assert [(event.kind, event.count) for event in events] == [("fail_open", 1)]
    assert "UNPROTECTED" in caplog.text


@both
def test_a_failing_identify_admits_too(door: str) -> None:
    events: list[desk.GatewayEvent] = []
    reply = post(door, active_mechanism(), b"x", identify=lambda request: 1 / 0, on_event=events.append)
    assert (reply.status, reply.received) == (200, b"x")
    assert events[0].kind == "fail_open"


@both
def test_an_error_of_the_application_is_not_ours(door: str) -> None:
    def wsgi_failing(environ: Any, start_response: Any) -> Any:
        raise ZeroDivisionError

    async def asgi_failing(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    headers = [("TMM-User", QUIET), ("TMM-SRV", "4.1.1")]
    app: Any = wsgi_failing if door == "wsgi" else asgi_failing
    module: Any = wsgi if door == "wsgi" else asgi
    middleware = module.TrafficManagement(app, active_mechanism(), HttpHeader())
    with pytest.raises(ZeroDivisionError):
        (post_wsgi if door == "wsgi" else post_asgi)(middleware, [b""], headers)
    assert middleware.counts.fail_open == 0


def test_of_many_incidents_the_first_is_told_at_once_and_the_others_once_a_second(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1_000.0
    monkeypatch.setattr(desk.time, "monotonic", lambda: now)
    told: list[int] = []
    front = desk.Desk(active_mechanism(), on_event=lambda event: told.append(event.count))
    for _ in range(500):
        front.note("not_duis", "no DUIS")
    now += 0.999
    front.note("not_duis", "no DUIS")
    assert told == [1]
    now += 0.001
    front.note("not_duis", "no DUIS")
    front.note("fail_open", "another kind has its own second")
    assert told == [1, 502, 1]
    assert (front.counts.not_duis, front.counts.fail_open) == (502, 1)


def test_a_failing_on_event_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    reply = post("asgi", active_mechanism(), b"x", not_duis="pass", on_event=lambda event: 1 / 0)
    assert reply.status == 200
    assert "on_event failed" in caplog.text


# --- names


def test_forty_thousand_spellings_and_unknown_names_keep_memory_constant() -> None:
    name = "AB-CD-EF-AB-CD-EF-AB-CD"
    letters = [at for at, letter in enumerate(name) if letter != "-"]
    front = desk.Desk(active_mechanism(user_ids={name: QUIET}))
    most = 0
    for number in range(40_000):
        lower = {at for place, at in enumerate(letters) if number >> place & 1}
        spelling = "".join(letter.lower() if at in lower else letter for at, letter in enumerate(name))
        front.decide(spelling, f"99.{number}")
        front.decide(f"unknown {number}", "4.1.1")
        most = max(most, len(front._gates))
    assert most == 16_384
    assert len(front._srvs) == 1
    assert front.counts.fail_open == 0


def test_texts_of_headers_are_kept_within_4096_of_64_bytes() -> None:
    texts = Texts(header_text)
    for number in range(10_000):
        assert texts[b"%d" % number] == str(number)
        assert len(texts) <= 4_096
    assert texts[b"\xfc" * 64] is texts[b"\xfc" * 64]
    assert texts[b"x" * 65] == "x" * 65
    assert b"x" * 65 not in texts


def test_a_new_configuration_is_followed() -> None:
    mechanism = active_mechanism()
    front = desk.Desk(mechanism)
    assert front.decide(USER, "4.1.1") is None
    assert front.decide("newcomer", "4.1.1") is not None
    users = {QUIET: 0.0, FLOODING: 0.0, "newcomer": 300.0}
    settings: dict[str, Any] = {"sharing": "none", "hold_s": 3_600, "user_ids": {OTHER_USER: "newcomer"}}
    mechanism.apply(Config(500, 400, allocations=users, **settings))
    assert front.decide("newcomer", "4.1.1") is None
    assert front.decide(OTHER_USER, "4.1.1") is None
    assert front.decide(QUIET, "4.1.1") is not None
    assert front.decide(USER, "4.1.1") is not None  # its identifier is nobody's now
    assert front.counts.fail_open == 0


@both
def test_huge_headers_are_not_kept(door: str) -> None:
    """Names, Accept and subjects of a megabyte, each another one: nothing of them stays when they are answered."""
    mechanism = active_mechanism()
    front = desk.Desk(mechanism)
    sources = (HttpHeader(), ClientCertificate(header="X-SSL-Client-S-DN"))

    def ask(number: int) -> None:
        huge = f"{number:07}" + "x" * 1_000_000
        assert front.decide(huge, huge) is not None
        for source in sources:
            headers = [
                ("TMM-User", huge),
                ("TMM-SRV", huge),
                ("Accept", huge),
                ("X-SSL-Client-S-DN", f"CN={huge}"),
            ]
            assert post(door, mechanism, compose(), headers, identify=source).status == 503

    ask(0)
    gc.collect()
    tracemalloc.start()
    for number in range(1, 6):
        ask(number)
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 500_000  # five of them would be 20 MB


class _Slow:
    """Counts that let other threads in between reading and writing."""

    count = 0

    @property
    def not_duis(self) -> int:
        count = self.count
        time.sleep(0)
        return count

    @not_duis.setter
    def not_duis(self, count: int) -> None:
        self.count = count


def test_incidents_are_counted_exactly_by_many_threads(caplog: pytest.LogCaptureFixture) -> None:
    front = desk.Desk(active_mechanism())
    front.counts = _Slow()  # type: ignore[assignment]

    def note() -> None:
        for _ in range(500):
            front.note("not_duis", "no DUIS")

    threads = [threading.Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert front.counts.not_duis == 4_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_lock_held_while_forking_does_not_hang_the_child() -> None:
    front = desk.Desk(active_mechanism())
    with desk._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the test run
        child = os.fork()
        if not child:
            # A worker forked while another thread counts: that thread does not exist here.
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(10)
                front.note("not_duis", "no DUIS")
            finally:
                os._exit(front.counts.not_duis)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
