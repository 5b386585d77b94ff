"""Tell Service Users that they are throttled, once for each event, and once when it has ended.

A notifier follows the event log, and writes into it what it has sent: after a crash it goes on where the log
says. Each sender has a notifier, and a thread, of its own: one that hangs or fails delays nobody.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from tmm_core.errors import EventLogError
from tmm_core.operations.event_log.event_records import Notification
from tmm_core.operations.event_log.files import LogFile, files_of
from tmm_core.operations.notices import Notice, Templates
from tmm_core.operations.senders import Sender

if TYPE_CHECKING:
    from tmm_core.operations.watch import Watcher

__all__ = ["Notifier", "start_notifiers"]

_log = logging.getLogger("tmm_core.notify")

_FIRST_WAIT_MS = 5_000  # after the first failure; doubled each time
_LONGEST_WAIT_MS = 3_600_000
_DAY_MS = 86_400_000
_ROWS = (
    "SELECT e.event, e.began_ms, e.ended_ms, e.duration_ms, name, u.* FROM event_users AS u"
    " JOIN traffic_management_events AS e USING (event) JOIN users USING (user)"
    " WHERE u.throttled > 0 AND e.mode = 'enforce' AND ifnull(e.ended_ms, ?) >= ?"
)


@dataclass(slots=True)
class _Attempts:
    first_ms: int
    count: int = 0
    due_ms: int = 0
    error: str = ""


class Notifier:
    """Send what is due by one sender.

    Parameters
    ----------
    path : path
        The event log.
    sender : Sender
    put : callable
        Gets each `Notification` for the log: ``Watcher.put``.
    templates : Templates
    give_up_ms : int
        Milliseconds after the first attempt at a notice, a day by default, after which it is given up.
    jitter : callable
        Returns 0 to 1: attempts of many Users at a server that comes back are spread.

    Notes
    -----
    *Not thread-safe.* A notice is sent at least once: one that was sent in the second in which the process was
    killed is sent again, with the same id.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        sender: Sender,
        put: Callable[[Any], object],
        *,
        templates: Templates | None = None,
        give_up_ms: int = _DAY_MS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._path = path
        self._sender = sender
        self._put = put
        self._templates = templates or Templates()
        self._give_up_ms = give_up_ms
        self._jitter = jitter
        self._done: set[tuple[str, str, str]] = set()
        self._attempts: dict[tuple[str, str, str], _Attempts] = {}

    def step(self, at_ms: int) -> int:
        """Send what is due at `at_ms` (UTC, milliseconds since 1970); returns how many notices were sent."""
        sent = 0
        for notice in self._waiting(at_ms):
            key = (notice.event, notice.user, notice.notice)
            attempts = self._attempts.setdefault(key, _Attempts(at_ms))
            if at_ms < attempts.due_ms:
                continue
            attempts.count += 1
            try:
                self._sender.send(notice)
            except Exception as error:
                attempts.error = f"{type(error).__name__}: {error}"[:300]
                if at_ms - attempts.first_ms >= self._give_up_ms:
                    self._finish(key, "given-up", attempts, at_ms)
                    _log.error(
                        "%s: a notice to %r is given up: %s", self._sender.name, key[1], attempts.error
                    )
                else:
                    wait = min(_FIRST_WAIT_MS << min(attempts.count - 1, 20), _LONGEST_WAIT_MS)
                    attempts.due_ms = at_ms + int(wait * (1 + self._jitter() / 2))
                    _log.warning(
                        "%s: a notice to %r must wait: %s", self._sender.name, key[1], attempts.error
                    )
                continue
            sent += 1
            self._finish(key, "sent", attempts, at_ms)
        return sent

    def _finish(self, key: tuple[str, str, str], state: str, attempts: _Attempts, at_ms: int) -> None:
        event, user, notice = key
        self._done.add(key)
        del self._attempts[key]
        detail = attempts.error if state == "given-up" else ""
        self._put(Notification(event, user, notice, self._sender.name, state, attempts.count, at_ms, detail))

    def _waiting(self, at_ms: int) -> list[Notice]:
        """Notices that are not done, of the two newest files: an event may have begun in the last month."""
        found: dict[tuple[str, str, str], Notice] = {}
        since = at_ms - self._give_up_ms - _DAY_MS
        for path in files_of(self._path)[-2:]:
            try:
                file = LogFile(path)
            except EventLogError:
                continue  # it is being made
            try:
                query = (
                    "SELECT event, name, notice FROM notifications JOIN users USING (user) WHERE sender = ?"
                )
                self._done.update(tuple(row) for row in file.rows(query, (self._sender.name,)))
                for row in file.rows(_ROWS, (at_ms, since)):
                    if not self._sender.accepts(row["name"]):
                        continue
                    for notice in ("began", "ended") if row["ended_ms"] is not None else ("began",):
                        key = (row["event"], row["name"], notice)
                        if key not in self._done:
                            found[key] = Notice.of(
                                dict(row), notice, self._by_srv(file, row, notice), self._templates
                            )
            finally:
                file.connection.close()
        return list(found.values())

    @staticmethod
    def _by_srv(file: LogFile, row: Any, notice: str) -> dict[str, int]:
        if notice == "began":
            return {}
        query = (
            "SELECT code, throttled FROM event_counts JOIN srvs USING (srv) WHERE event = ? AND user = ?"
            " AND throttled > 0"
        )
        return {each["code"]: each["throttled"] for each in file.rows(query, (row["event"], row["user"]))}


class NotifierThread(threading.Thread):
    """A notifier that steps every few seconds until it is stopped; a daemon, it keeps no process alive."""

    def __init__(self, notifier: Notifier, name: str, period_s: float, may_send: Callable[[], bool]) -> None:
        super().__init__(name=f"tmm-notify-{name}", daemon=True)
        self._notifier = notifier
        self._may_send = may_send
        self._period_s = period_s
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._period_s):
            try:
                if self._may_send():
                    self._notifier.step(time.time_ns() // 1_000_000)
            except Exception:
                _log.exception("the notifier failed; it goes on")

    def stop(self, timeout_s: float = 2.0) -> None:
        """End; a notice that is being sent is waited for so long. Harmless when repeated."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout_s)


def start_notifiers(
    path: str | PathLike[str],
    senders: Sequence[Sender],
    put: Callable[[Any], object],
    *,
    templates: Templates | None = None,
    period_s: float = 2.0,
    elected: Watcher | None = None,
) -> list[NotifierThread]:
    """Start a notifier in a thread of its own for each sender.

    Parameters
    ----------
    path, senders, put, templates
        As for `Notifier`.
    period_s : float
        Seconds between two looks at the log.
    elected : Watcher, optional
        Of several processes only that one sends whose watcher writes the log.
    """

    def may_send() -> bool:
        return elected is None or elected.elected

    threads = [
        NotifierThread(Notifier(path, sender, put, templates=templates), sender.name, period_s, may_send)
        for sender in senders
    ]
    for thread in threads:
        thread.start()
    return threads
