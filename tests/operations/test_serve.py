"""The live page: shows what is, changes nothing, answers nobody it does not know, and needs nothing from elsewhere."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tmm_core import Mechanism
from tmm_core.operations import serve
from tmm_core.operations.serve import Feed, Page

from .browser import CHROMIUM, Browser, axe
from .conftest import MakeWorld
from .world import NORTH, SOUTH, World, small_config

LIVE = Path(serve.__file__).parent / "live"


class Shown:
    """A world and its page; readings are taken when the test says so."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.feed = Feed(world.mechanism, at_ms=world.at_ms, mono_ns=world.mono_ns)
        self.page = Page(world.mechanism, port=0, feed=self.feed, period_s=3600)
        self.feed.wait(0, 10)  # the page has looked once; from here on the test does
        self.port = self.page._server.server_port

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body


@pytest.fixture
def shown(world: World) -> Iterator[Shown]:
    made = Shown(world)
    yield made
    made.page.stop()


def test_a_reading_is_what_the_engine_counts(world: World) -> None:
    feed = Feed(world.mechanism, at_ms=world.at_ms, mono_ns=world.mono_ns)
    world.quiet(1)
    feed.look()
    world.traffic(4, {(NORTH, "4.1.1"): 200.0, (SOUTH, "4.8.1"): 2.0, (SOUTH, "7.4"): 3.0})
    feed.look()
    reading = json.loads(feed.latest)
    assert reading["active"] and reading["activations"] == 1 and reading["threshold"] == 100.0
    north, south = reading["users"][:2]
    assert (
        north["user"] == NORTH and north["throttled"] > 50 and north["offered"] == pytest.approx(200, abs=1)
    )
    assert south == {
        "user": SOUTH,
        "allocation": 20.0,
        "offered": 8.0,
        "throttled": 0.0,
        "spare": 0.0,
        "priority": 3.0,
    }
    assert [row["srv"] for row in reading["srvs"]] == ["4.1.1"]
    assert sum(reading["decisions"].values()) == pytest.approx(211, abs=1)
    assert [each["seq"] for each in json.loads(feed.history())] == [1, 2]


def test_rates_are_averages_over_five_seconds(world: World) -> None:
    feed = Feed(world.mechanism, at_ms=world.at_ms, mono_ns=world.mono_ns)
    for rate in (100.0,) * 8 + (0.0,) * 4:
        world.traffic(1, {(NORTH, "4.1.1"): rate})
        feed.look()
    row = next(row for row in json.loads(feed.latest)["users"] if row["user"] == NORTH)
    assert row["offered"] == pytest.approx(20.0), "one second of five at 100"


def test_a_user_who_joins_is_shown(world: World) -> None:
    feed = Feed(world.mechanism, at_ms=world.at_ms, mono_ns=world.mono_ns)
    feed.look()
    world.mechanism.apply(small_config(allocations={NORTH: 30.0, "East": 5.0}), now=world.now)
    world.traffic(1, {("East", "4.1.1"): 4.0})
    feed.look()
    users = {row["user"]: row for row in json.loads(feed.latest)["users"]}
    assert users["East"]["offered"] == pytest.approx(4.0) and SOUTH not in users


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/icon.svg", "/state.json", "/history.json"])
def test_every_answer_forbids_what_the_page_does_not_need(shown: Shown, path: str) -> None:
    answer, body = shown.ask(path)
    assert answer.status == 200 and body is not None
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert (
        answer.headers["X-Content-Type-Options"] == "nosniff"
        and answer.headers["Cache-Control"] == "no-store"
    )
    head, nothing = shown.ask(path, "HEAD")
    assert (
        head.status == 200
        and nothing == b""
        and head.headers["Content-Length"] == answer.headers["Content-Length"]
    )


def test_nothing_is_loaded_from_elsewhere_or_put_into_the_page_as_markup() -> None:
    for file in LIVE.iterdir():
        text = file.read_text(encoding="utf-8")
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", text.replace("http://www.w3.org", "")))
        assert not {each for each in addresses if "." in each}, file.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|style=", text
        )
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=", (LIVE / "index.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(shown: Shown, method: str) -> None:
    answer, _ = shown.ask("/", method)
    assert answer.status == 501


def test_there_is_nothing_else(shown: Shown) -> None:
    for path in (
        "/nothing",
        "/../serve.py",
        "/app.js/../../serve.py",
        "/%2e%2e/serve.py",
        "/app.js?x",
    ):
        assert shown.ask(path)[0].status == 404, path


@pytest.mark.parametrize("path", ["/", "/state.json", "/events"])
def test_a_name_that_is_not_ours_gets_nothing(shown: Shown, path: str) -> None:
    """DNS rebinding: a page elsewhere makes its own name point to this machine."""
    for host in (
        "evil.example",
        f"evil.example:{shown.port}",
        "127.0.0.1.evil.example",
        "",
        "[::1].evil.example",
    ):
        answer, body = shown.ask(path, Host=host)
        assert answer.status == 421 and b"{" not in body, host
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert shown.ask(path, Origin=origin)[0].status == 421, origin


def test_the_names_of_this_machine_are_ours(shown: Shown) -> None:
    for host in (f"localhost:{shown.port}", f"127.0.0.1:{shown.port}", f"[::1]:{shown.port}", "LOCALHOST"):
        assert shown.ask("/", Host=host)[0].status == 200, host
    host = f"127.0.0.1:{shown.port}"
    assert shown.ask("/", Host=host, Origin=f"http://{host}")[0].status == 200


def test_another_name_can_be_allowed(world: World) -> None:
    page = serve.start(world.mechanism, port=0, allow_hosts=["TOC.example"], period_s=3600)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", page._server.server_port, timeout=10)
        connection.request("GET", "/", headers={"Host": "toc.example"})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        page.stop()
        page.stop()


def read_event(answer: http.client.HTTPResponse) -> dict[str, Any]:
    while True:
        line = answer.readline()
        assert line, "the stream has ended"
        if line.startswith(b"data: "):
            found: dict[str, Any] = json.loads(line[6:])
            return found


def test_readings_are_streamed_as_they_come(shown: Shown) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shown.port, timeout=10)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    first = read_event(answer)
    assert not first["active"]
    shown.world.overload(3)
    shown.feed.look()
    second = read_event(answer)
    assert second["active"] and second["seq"] == first["seq"] + 1 and second["users"][0]["user"] == NORTH
    answer.close()
    connection.close()


def test_too_many_pages_are_refused_and_leave_room_for_others(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(serve._MOST_LISTENERS):
        assert shown.page._server.listeners.acquire(blocking=False)
    assert shown.ask("/events")[0].status == 503
    assert shown.ask("/")[0].status == 200
    shown.page._server.listeners.release()
    connection = http.client.HTTPConnection("127.0.0.1", shown.port, timeout=10)
    connection.request("GET", "/events")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_mechanism_that_cannot_be_read_does_not_end_the_page(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Feed(world.mechanism, at_ms=world.at_ms, mono_ns=world.mono_ns)
    broken.look = lambda: (_ for _ in ()).throw(RuntimeError("gone"))  # type: ignore[method-assign]
    page = Page(world.mechanism, port=0, feed=broken, period_s=0.01)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", page._server.server_port, timeout=10)
        connection.request("GET", "/state.json")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        page.stop()
    assert "it goes on" in caplog.text


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [1280, 375])
def test_a_browser_shows_what_happens(make_world: MakeWorld, tmp_path: Path, width: int) -> None:
    evil = "<img src=x onerror=document.title=1>"
    world = make_world(config=small_config(allocations={NORTH: 30.0, evil: 20.0}))
    feed = Feed(world.mechanism, at_ms=world.at_ms, mono_ns=world.mono_ns)
    page = Page(world.mechanism, port=0, feed=feed, period_s=3600)
    state = "document.getElementById('state').textContent"
    rows = "[...document.querySelectorAll('#users tr.throttled th')].map((cell) => cell.textContent)"
    try:
        feed.wait(0, 10)
        with Browser(tmp_path / "profile", width) as browser:
            browser.open(page.address)
            browser.wait("document.getElementById('connection')?.textContent === 'Connected'")
            assert browser.ask(state).startswith("Inactive: nothing is throttled")
            assert browser.ask(rows) == [] and browser.ask("document.title") == "Traffic management: live"
            # It happens, and is shown without asking again.
            world.traffic(4, {(NORTH, "4.1.1"): 200.0, (evil, "4.8.1"): 20.0})
            feed.look()
            browser.wait(f"{state}.startsWith('Active: event 1')")
            assert browser.ask(rows) == [NORTH, evil], "text stays text"
            assert browser.ask("document.images.length") == 0
            assert browser.ask("document.title") == "ACTIVE - Traffic management: live"
            assert (
                browser.ask(
                    "document.querySelector('#chart .offered').getAttribute('points').split(' ').length"
                )
                == 2
            )
            assert "Highest offered load" in browser.ask("document.getElementById('chart-text').textContent")
            # The page itself does not scroll sideways; the table of Users does, by itself.
            assert browser.ask("document.documentElement.scrollWidth") <= width
            # Every control is named, the language given, and one heading is the first.
            assert browser.ask("document.documentElement.lang") == "en"
            assert browser.ask("document.querySelectorAll('h1').length") == 1
            assert browser.ask("document.querySelector('.scroll').tabIndex") == 0
            page.stop()
            browser.wait("document.getElementById('connection').textContent.includes('figures are old')")
            assert [text for text in browser.complaints if "ERR_" not in text] == [], (
                "nor is its policy broken"
            )
    finally:
        page.stop()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [1280, 375])
def test_axe_finds_nothing_on_the_live_page(make_world: MakeWorld, tmp_path: Path, width: int) -> None:
    script = axe()
    world = make_world(config=small_config(allocations={NORTH: 30.0}))
    feed = Feed(world.mechanism, at_ms=world.at_ms, mono_ns=world.mono_ns)
    page = Page(world.mechanism, port=0, feed=feed, period_s=3600)
    try:
        feed.wait(0, 10)
        with Browser(tmp_path / "profile", width) as browser:
            browser.open(page.address)
            browser.wait("document.getElementById('connection')?.textContent === 'Connected'")
            browser.ask(f"{script};0")
            run = "axe.run(document).then((found) => found.violations.map((each) => `${each.id} (${each.impact})`))"
            assert browser.ask(run) == []
            world.traffic(4, {(NORTH, "4.1.1"): 200.0})
            feed.look()
            browser.wait("document.getElementById('state').textContent.startsWith('Active: event 1')")
            assert browser.ask(run) == []
            browser.ask("document.documentElement.removeAttribute('lang')")
            assert browser.ask(run) == ["html-has-lang (serious)"], "and it does see a fault"
    finally:
        page.stop()


def test_a_page_of_a_real_mechanism_starts_and_stops() -> None:
    mechanism = Mechanism(small_config())
    page = serve.start(mechanism, port=0, period_s=0.01)
    try:
        _, reading = page.feed.wait(1, 10)
        assert json.loads(reading)["threshold"] == 100.0
        assert page.address.startswith("http://127.0.0.1:")
    finally:
        page.stop()
