"""The live page for the operations room: load against threshold, Users and throttling as it happens. Read-only.

    page = serve.start(mechanism)         # http://127.0.0.1:8765/, in threads of this process
    page.stop()

Server-sent events over the standard library's HTTP server; nothing is loaded from elsewhere, nothing can be
changed from the page. It has no login: it listens on loopback, and a Host or Origin it does not know is refused,
so that no web page elsewhere can read it through the browser.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.event_log.event_records import iso

__all__ = ["Feed", "Page", "start"]

_log = logging.getLogger("tmm_core.serve")

DEFAULT_PORT = 8765
_HISTORY = 600  # readings kept for who opens the page now
_MOST_USERS = 200  # rows on the page, those with the highest offered load
_MOST_SRVS = 10
_MOST_LISTENERS = 32  # a thread each
_WINDOW_NS = 5_000_000_000  # rates of Users and SRVs are averages over so long: rows that jump cannot be read
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M1 14V9h3v5zm5 0V5h3v9zm5 0V2h3v12z" '
    b'fill="#00558c"/><path d="M0 4h16" stroke="#a8071a" stroke-width="1.5"/></svg>'
)


class Feed:
    """Look at a Mechanism once a second, and keep the last ten minutes for all who listen.

    Parameters
    ----------
    at_ms, mono_ns : callable
        The clocks.

    Notes
    -----
    `look` is *not thread-safe*; `latest`, `history` and `wait` are *thread-safe*. However many listen, the
    Mechanism is looked at once.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        *,
        at_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._mechanism = mechanism
        self._at_ms, self._mono_ns = at_ms, mono_ns
        self._changed = threading.Condition()
        self._history: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self._latest = ""
        self._seq = 0
        self._looks: deque[tuple[int, Any, Any]] = deque()

    def look(self) -> None:
        """Look once, and tell all who wait."""
        mechanism, now = self._mechanism, self._mono_ns()
        state = mechanism.engine.state(now)
        snapshot = mechanism.snapshot(now)
        units = mechanism.engine.units()[: len(snapshot.users)]
        config = mechanism.config
        requests = snapshot.counts.sum(axis=0)
        self._looks.append((now, units, requests))
        while len(self._looks) > 2 and now - self._looks[1][0] >= _WINDOW_NS:
            self._looks.popleft()
        since, units_then, requests_then = self._looks[0]
        span_s = max((now - since) / 1e9, 1e-9)
        per_user = _grown(units, units_then) / span_s
        per_srv = _grown(requests, requests_then) / span_s
        outcomes = per_user.sum(axis=0)
        system = {
            "seq": self._seq + 1,
            "at": iso(self._at_ms()),
            "active": snapshot.active,
            "load": round(snapshot.load, 1),
            "offered": round(snapshot.offered_load, 1),
            "threshold": config.operating_threshold,
            "capacity": config.system_capacity,
            "backlog_s": round(snapshot.backlog_s, 3),
            "throttled": round(float(outcomes[Decision.THROTTLED]), 1),
        }
        reading = {
            **system,
            "mode": config.mode,
            "version": config.version,
            "release": config.release_threshold,
            "activations": snapshot.activations,
            "since_s": round(max(now - state["changed_at"], 0) / 1e9) if snapshot.activations else None,
            "level": round(snapshot.level, 2) if snapshot.level < 1000 else None,
            "decisions": {
                decision.name.lower(): round(float(outcomes[decision]), 1) for decision in reversed(Decision)
            },
            "users": self._users(snapshot.users, per_user),
            "srvs": _highest(snapshot.srvs, per_srv[:, Decision.THROTTLED]),
        }
        with self._changed:
            self._seq += 1
            self._history.append(system)
            self._latest = json.dumps(reading, separators=(",", ":"), allow_nan=False)
            self._changed.notify_all()

    def _users(self, users: list[str], per_user: Any) -> list[dict[str, Any]]:
        config = self._mechanism.config
        rows = []
        for slot, (user, rates) in enumerate(zip(users, per_user.tolist(), strict=True)):
            allocation = config.allocations.get(user) if slot else config.unknown_allocation
            if allocation is None and not any(rates):
                continue  # no longer configured, and silent
            throttled, spare, within, priority = rates
            rows.append(
                {
                    "user": user, "allocation": allocation or 0.0, "offered": round(throttled + spare + within, 1),
                    "throttled": round(throttled, 1), "spare": round(spare, 1), "priority": round(priority, 1),
                }
            )  # fmt: skip
        rows.sort(key=lambda row: (-row["throttled"], -row["offered"], row["user"]))
        return rows[:_MOST_USERS]

    @property
    def latest(self) -> str:
        """The last reading, JSON; empty before the first."""
        with self._changed:
            return self._latest

    def history(self) -> str:
        """Return the system's figures of the last ten minutes, JSON."""
        with self._changed:
            kept = list(self._history)
        return json.dumps(kept, separators=(",", ":"), allow_nan=False)

    def wait(self, seen: int, timeout_s: float) -> tuple[int, str]:
        """Wait for a reading after number `seen`; returns its number and JSON, or `seen` and nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._seq > seen, timeout_s)
            return (self._seq, self._latest) if self._seq > seen else (seen, "")


def _grown(now: Any, before: Any) -> Any:
    """What was added since; Users may have joined."""
    grown = now.astype(float)
    grown[: before.shape[0]] -= before[: now.shape[0]]
    return grown


def _highest(names: list[str], rates: Any) -> list[dict[str, Any]]:
    found = [
        {"srv": name, "throttled": round(rate, 1)}
        for name, rate in zip(names, rates.tolist(), strict=True)
        if rate
    ]
    return sorted(found, key=lambda row: (-row["throttled"], row["srv"]))[:_MOST_SRVS]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "tmm-core"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        if not self._is_ours():
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"not a name of this server\n")
        elif self.path in _PAGES:
            name, kind = _PAGES[self.path]
            self._answer(HTTPStatus.OK, kind, files(__package__).joinpath("live", name).read_bytes())
        elif self.path == "/icon.svg":
            self._answer(HTTPStatus.OK, "image/svg+xml", _ICON)
        elif self.path == "/state.json":
            self._answer(HTTPStatus.OK, "application/json", self.server.feed.latest.encode())
        elif self.path == "/history.json":
            self._answer(HTTPStatus.OK, "application/json", self.server.feed.history().encode())
        elif self.path == "/events":
            self._stream()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _is_ours(self) -> bool:
        """Whether the browser was sent here by name, and not by a page elsewhere (DNS rebinding)."""
        allowed = self.server.hosts
        host = self.headers.get("Host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        origin = self.headers.get("Origin")
        if origin is not None:
            found = urlsplit(origin).netloc
            if found != host:
                return False
        return len(self.headers.get_all("Host", [])) == 1 and name.lower() in allowed

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self) -> None:
        if not self.server.listeners.acquire(blocking=False):
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"too many pages are open\n")
            return
        try:
            self.close_connection = True
            self.send_response(HTTPStatus.OK)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(b"retry: 2000\n\n")
            seen = 0
            while not self.server.stopping.is_set():
                seen, reading = self.server.feed.wait(seen, 5.0)
                # A comment keeps the connection alive, and finds out whether anybody is there.
                self.wfile.write(
                    f"id: {seen}\ndata: {reading}\n\n".encode() if reading else b": still here\n\n"
                )
                self.wfile.flush()
        except OSError:
            pass  # the page was closed
        finally:
            self.server.listeners.release()

    def log_message(self, *said: Any) -> None:
        _log.debug("%s: %s", self.address_string(), said)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], feed: Feed, hosts: Iterable[str]) -> None:
        self.feed = feed
        self.hosts = frozenset(host.lower() for host in hosts)
        self.listeners = threading.BoundedSemaphore(_MOST_LISTENERS)
        self.stopping = threading.Event()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a connection of the live page failed", exc_info=True)


class Page:
    """The live page, being served. *Thread-safe.*

    Attributes
    ----------
    address : str
        Where it is.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        allow_hosts: Iterable[str] = (),
        period_s: float = 1.0,
        feed: Feed | None = None,
    ) -> None:
        self.feed = feed or Feed(mechanism)
        name = f"[{host}]" if ":" in host else host
        hosts = {*_LOOPBACK, name, *allow_hosts}
        self._server = _Server((host, port), self.feed, hosts)
        self._period_s = period_s
        self.address = f"http://{name}:{self._server.server_port}/"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.2,), name="tmm-serve", daemon=True),
            threading.Thread(target=self._look, name="tmm-serve-feed", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _look(self) -> None:
        while True:
            try:
                self.feed.look()
            except Exception:
                _log.exception("the live page could not look at the Mechanism; it goes on")
            if self._server.stopping.wait(self._period_s):
                return

    def stop(self) -> None:
        """End. Harmless when repeated."""
        if not self._server.stopping.is_set():
            self._server.stopping.set()
            self._server.shutdown()
            self._server.server_close()
            for thread in self._threads:
                thread.join(5)


def start(mechanism: Mechanism, **options: Any) -> Page:
    """Serve the live page of a Mechanism in threads of this process.

    Parameters
    ----------
    **options
        `host` (loopback by default), `port` (8765; 0 for a free one), `allow_hosts`: further names under which
        browsers may ask, `period_s`.

    Raises
    ------
    OSError
        The address is taken.
    """
    return Page(mechanism, **options)
