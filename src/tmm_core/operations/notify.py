"""Tell Service Users that they are throttled, once for each event, and once when it has ended.

A User is told its own figures, and advice; nothing of others. A notifier follows the event log, and writes into it
what it has sent: after a crash it goes on where the log says. Each sender has a notifier, and a thread, of its own:
one that hangs or fails delays nobody.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Protocol

from tmm_core.errors import ConfigError, EventLogError, Mistake
from tmm_core.operations.event_log.event_records import Notification, iso
from tmm_core.operations.event_log.files import LogFile, files_of
from tmm_core.operations.terminal import duration, number
from tmm_core.policy.validation import uncovered

if TYPE_CHECKING:
    from tmm_core.operations.watch import Watcher

__all__ = ["FIELDS", "Notice", "Notifier", "Sender", "Templates", "start_notifiers"]

#: Names that a template may use.
FIELDS = frozenset(
    {"user", "event", "began", "ended", "duration", "allocation", "offered", "throttled", "admitted", "priority",
     "within", "spare", "throttled_seconds", "first_throttled", "last_throttled", "by_srv"}
)  # fmt: skip

_BEGAN = """\
Subject: Traffic management: some of your Service Requests are being throttled

To $user

The DCC System has reached its operating threshold. Traffic management began at $began (UTC).
Your Service Requests above your allocation of $allocation units per second may be answered with HTTP 503;
the first one was at $first_throttled.

What to do:
- Send a throttled Service Request again after the time in its Retry-After header, not sooner: it was not processed.
- Postpone what is not urgent, for example bulk reads.
- Requests on the priority list, and all within your allocation, are admitted as always.

You will be told when this event has ended.
Event $event
"""
_ENDED = """\
Subject: Traffic management has ended: $throttled of your Service Requests were throttled

To $user

Traffic management began at $began and ended at $ended (UTC), after $duration.

Of your $offered Service Requests in this time
  $admitted were admitted: $priority on the priority list, $within within your allocation
  of $allocation units per second, $spare from spare capacity;
  $throttled were throttled, in $throttled_seconds seconds between $first_throttled and $last_throttled.

Throttled by Service Reference Variant:
$by_srv

What to do:
- Throttled Service Requests were not processed. Those you have not sent again can be sent now, spread over time.
- If this happens to you again and again, spread your scheduled reads, or ask for your allocation to be reviewed.

Event $event
"""


@dataclass(frozen=True, slots=True)
class Templates:
    """Texts for the beginning and the end of an event: ``string.Template``; a first line ``Subject: ...``.

    Raises
    ------
    ConfigError
        A text uses names that are not in `FIELDS`, or has no subject.
    """

    began: str = _BEGAN
    ended: str = _ENDED

    def __post_init__(self) -> None:
        found = []
        for name, text in (("began", self.began), ("ended", self.ended)):
            template = Template(text)
            unknown = sorted(set(template.get_identifiers()) - FIELDS)
            if unknown or not template.is_valid():
                what = f"${', $'.join(unknown)}" if unknown else "a $ that begins no name ($$ is a dollar)"
                known = ", ".join(sorted(FIELDS))
                found.append(Mistake(f"{name}.txt: {what} cannot be filled in, expected {known}", field=name))
            if not text.startswith("Subject: "):
                found.append(Mistake(f"{name}.txt: the first line must begin with 'Subject: '", field=name))
        if found:
            raise ConfigError(found)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Templates:
        """Read ``began.txt`` and ``ended.txt`` of a folder; what is not there is as it comes.

        Raises
        ------
        ConfigError
            All mistakes at once.
        """
        texts, found = {}, []
        if not Path(folder).is_dir():
            raise ConfigError(Mistake(f"{folder} is no folder with began.txt or ended.txt"))
        for name in ("began", "ended"):
            file = Path(folder) / f"{name}.txt"
            if file.is_file():
                try:
                    texts[name] = file.read_text(encoding="utf-8")
                except UnicodeDecodeError as error:
                    found.append(Mistake(f"is not UTF-8: {error}", file=str(file)))
                except OSError as error:
                    found.append(Mistake(f"cannot be read: {error.strerror}", file=str(file)))
        if not texts and not found:
            found.append(Mistake(f"{folder} has neither began.txt nor ended.txt"))
        if found:
            raise ConfigError(found)
        return cls(**texts)


@dataclass(frozen=True, slots=True)
class Notice:
    """One User, one event, its beginning or its end.

    Attributes
    ----------
    user, event, notice : str
        `notice` is ``began`` or ``ended``.
    began, ended : str
        ISO 8601, UTC; `ended` is empty in ``began``.
    counts : mapping of str to int
        The User's own Service Requests in the event: `throttled`, `spare`, `within`, `priority`,
        `throttled_seconds`.
    by_srv : mapping of str to int
        Its throttled ones by SRV.
    """

    user: str
    event: str
    notice: str
    began: str
    ended: str
    duration_s: float
    allocation: float
    first_throttled: str
    last_throttled: str
    counts: Mapping[str, int]
    by_srv: Mapping[str, int]
    templates: Templates = field(default_factory=Templates, repr=False)

    @property
    def id(self) -> str:
        """The same for each attempt at this notice."""
        return f"{self.event}/{self.notice}"

    @classmethod
    def of(
        cls, row: Mapping[str, Any], notice: str, by_srv: Mapping[str, int], templates: Templates
    ) -> Notice:
        """Return the notice of a row of ``event_users`` joined with its event."""
        ended = notice == "ended"
        return cls(
            user=row["name"], event=row["event"], notice=notice,
            began=iso(row["began_ms"]), ended=iso(row["ended_ms"]) if ended else "",
            duration_s=row["duration_ms"] / 1000 if ended else 0.0,
            allocation=row["allocation"],
            first_throttled=iso(row["first_throttled_ms"] or row["began_ms"]),
            last_throttled=iso(row["last_throttled_ms"] or row["began_ms"]),
            counts={name: row[name] for name in ("throttled", "spare", "within", "priority", "throttled_seconds")},
            by_srv=by_srv if ended else {}, templates=templates,
        )  # fmt: skip

    def json(self) -> str:
        """Return the notice for programs."""
        value = {
            "user": self.user, "event": self.event, "notice": self.notice, "began": self.began,
            "allocation": self.allocation, "first_throttled": self.first_throttled,
        }  # fmt: skip
        if self.notice == "ended":
            value |= {
                "ended": self.ended, "duration_s": self.duration_s, "last_throttled": self.last_throttled,
                "service_requests": dict(self.counts), "throttled_by_srv": dict(self.by_srv),
            }  # fmt: skip
        return json.dumps(value, indent=1)

    def text(self) -> str:
        """Return the notice for people, the subject in the first line."""
        counts = self.counts
        admitted = counts["spare"] + counts["within"] + counts["priority"]
        lines = [f"  {srv:<12} {number(count):>12}" for srv, count in sorted(self.by_srv.items())]
        values: dict[str, str] = {
            "user": uncovered(self.user, lambda _: "?"), "event": self.event, "began": _time(self.began),
            "ended": _time(self.ended), "duration": duration(round(self.duration_s, 1)),
            "allocation": number(self.allocation), "offered": number(admitted + counts["throttled"]),
            "admitted": number(admitted), **{name: number(count) for name, count in counts.items()},
            "first_throttled": _time(self.first_throttled), "last_throttled": _time(self.last_throttled),
            "by_srv": "\n".join(lines),
        }  # fmt: skip
        template = self.templates.began if self.notice == "began" else self.templates.ended
        return Template(template).substitute(values)

    def subject(self) -> str:
        """Return the subject of the text."""
        return self.text().partition("\n")[0].removeprefix("Subject: ").strip()

    def body(self) -> str:
        """Return the text without its subject."""
        return self.text().partition("\n")[2].lstrip("\n")


def _time(text: str) -> str:
    """A time to the second, for people."""
    return text[:19].replace("T", " ")


_log = logging.getLogger("tmm_core.notify")

_FIRST_WAIT_MS = 5_000  # after the first failure; doubled each time
_LONGEST_WAIT_MS = 3_600_000
_DAY_MS = 86_400_000
_ROWS = (
    "SELECT e.event, e.began_ms, e.ended_ms, e.duration_ms, name, u.* FROM event_users AS u"
    " JOIN traffic_management_events AS e USING (event) JOIN users USING (user)"
    " WHERE u.throttled > 0 AND e.mode = 'enforce' AND ifnull(e.ended_ms, ?) >= ?"
)


class Sender(Protocol):
    """Something that delivers notices."""

    @property
    def name(self) -> str:
        """Name in the event log."""

    def accepts(self, user: str) -> bool:
        """Tell whether there is a way to this User."""

    def send(self, notice: Notice) -> None:
        """Deliver a notice, or raise; may be called again with the same notice."""


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
    put : callable
        Gets each `Notification` for the log: ``Watcher.put``.
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
