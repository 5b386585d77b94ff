"""Follow the configuration files while the Mechanism runs: edits at once, a dated file at its midnight UTC.

    look          0 s      1 s      2 s          23:59:59  00:00:00
    files         edited   still    -            -         -
    what happens  wait     apply    nothing      sleep     apply what was read and checked ahead of time

A file with a mistake changes nothing: the last good configuration stays in force, and whoever asked is told.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError, Mistake, TMMError
from tmm_core.mechanism import Mechanism
from tmm_core.policy.config import Config
from tmm_core.policy.toml_places import load_toml

__all__ = ["KINDS", "Reload", "Reloader", "refusal"]

#: What can come of a look at the files; a closed set, so that a log and a metric can list them.
KINDS = ("applied", "unchanged", "refused", "scheduled")

_log = logging.getLogger(__name__)
_ONE_DAY = timedelta(days=1)
# A clock set back over midnight by less than this does not bring the day before back.
_STEP_BACK = timedelta(hours=1)
# What was refused is tried again: a disk, a lock or memory may have been at fault, and no file changes then.
_TRY_AGAIN = timedelta(minutes=1)
#: What is read at the start only.
_AT_START = ("shared", "cluster_url", "event_log", "max_users")

Signature = tuple[tuple[str, int, int, int], ...]
"""Name, time of the last change (ns), size and inode of every file that decides."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a look at the configuration files.

    Attributes
    ----------
    kind : str
        ``applied``; ``unchanged`` (only told if it was asked for); ``refused``: the files have mistakes, the
        last good configuration stays; ``scheduled``: another one is ready for the next midnight UTC.
    at : datetime
        Aware, UTC.
    version, before : str
        Version in force after and before; of ``scheduled``, the one that is ready.
    message : str
        One sentence.
    mistakes : tuple of Mistake
        All mistakes of the files.
    """

    kind: str
    at: datetime
    version: str
    before: str
    message: str
    mistakes: tuple[Mistake, ...] = ()

    def __str__(self) -> str:
        return self.message


class Reloader:
    """Keeps a Mechanism at what its configuration files say.

    Every worker process has its own; over a block that the processes share, the first one applies and the
    others find it done. The configuration of the next day is read and checked ahead of time, so that at
    midnight UTC nothing is left to do but to apply it, and a mistake in it is told the day before.

    Parameters
    ----------
    mechanism : Mechanism
    path : path, optional
        The ``tmm.toml``; that of the configuration in force by default.
    tell : callable, optional
        Gets each `Reload`, from the thread that looked. What it raises is logged.
    clock : callable
        Returns the time, aware, UTC.
    poll_s : float
        Seconds between looks.

    Raises
    ------
    ConfigError
        No path is given, and the configuration in force was not read from a file.

    Notes
    -----
    *Thread-safe.* Threads do not survive a fork: call `start` in each worker.

    Examples
    --------
    >>> reloader = Reloader(Mechanism.open("tmm.toml"), tell=print)  # doctest: +SKIP
    >>> reloader.start()  # doctest: +SKIP
    """

    def __init__(
        self,
        mechanism: Mechanism,
        path: str | PathLike[str] | None = None,
        *,
        tell: Callable[[Reload], object] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        poll_s: float = 1.0,
    ) -> None:
        source = path if path is not None else mechanism.config.source
        if source is None:
            raise ConfigError("there is no file to follow: the configuration in force was not read from one")
        self.mechanism = mechanism
        self.path = Path(source)
        self._tell = tell
        self._clock = clock
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._asked = False
        self._ending = False
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._seen: Signature = ()  # at the last look
        self._read: Signature | None = None  # of what was read last, good or bad
        self._day = date.min  # the day whose allocations are in force
        self._files: tuple[Path, ...] = ()
        self._toml: tuple[tuple[str, int, int, int], Any] | None = None
        self._ready: tuple[date, Config] | None = None
        self._bad: tuple[datetime, set[str]] | None = (
            None  # when something was refused last, and what was told
        )

    @property
    def ready(self) -> tuple[date, Config] | None:
        """The configuration that is ready for the next midnight UTC, if it is another one, and its day."""
        ready = self._ready
        return ready if ready is not None and ready[1] != self.mechanism.config else None

    def reload(self) -> list[Reload]:
        """Read the files now, also if they did not change, and return what came of it."""
        with self._lock:
            return self._report(self._look(asked=True))

    def look(self) -> list[Reload]:
        """Look once: apply what changed, and what is due; returns what came of it, mostly nothing.

        A file that changed since the last look is left alone until it has been still for one: it may be
        half written. The first look and that at midnight do not wait, but what they find wrong is read
        again and told only when it has been still. What was refused is tried again every minute, and not told
        again: it may not have been the files' fault.
        """
        with self._lock:
            return self._report(self._look(asked=False))

    def wait_s(self) -> float:
        """Return the seconds until the next look: a poll, or midnight UTC if that is earlier."""
        at = self._clock()
        midnight = datetime.combine(at.date() + _ONE_DAY, datetime.min.time(), UTC)
        return min(self._poll_s, max((midnight - at).total_seconds(), 0.001))

    def start(self) -> None:
        """Follow the files from a thread of this process; nothing if it does so already."""
        with self._lock:
            if self._thread is not None and self._pid == os.getpid() and self._thread.is_alive():
                return
            self._ending, self._pid = False, os.getpid()
            self._wake.clear()
            self._thread = threading.Thread(target=self._follow, name="tmm-reload", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. Harmless when repeated."""
        self._ending = True
        self._wake.set()
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join()
        self._thread = None

    def on_sighup(self) -> None:
        """Let SIGHUP ask the thread for a reload at its next look; from the main thread only.

        Whoever handled the signal before is called as well.

        Raises
        ------
        ValueError
            Called from another thread, or the platform has no SIGHUP.
        """
        number = getattr(signal, "SIGHUP", None)
        if number is None:
            raise ValueError("this platform has no SIGHUP: call reload() instead")
        before = signal.getsignal(number)

        def handle(received: int, frame: Any) -> None:
            # And no more: a lock taken here might be held by the code that was interrupted.
            self._asked = True
            if callable(before):
                before(received, frame)

        signal.signal(number, handle)

    def __enter__(self) -> Reloader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _follow(self) -> None:
        while not self._ending:
            try:
                if self._asked:
                    self._asked = False
                    self.reload()
                else:
                    self.look()
            except Exception:  # whatever it is, the gateway goes on with what is in force
                _log.exception("the configuration could not be looked at; what is in force stays")
            self._wake.wait(self.wait_s())
            if not self._ending:
                self._wake.clear()

    def _report(self, found: list[Reload]) -> list[Reload]:
        for each in found:
            _log.log(logging.ERROR if each.kind == "refused" else logging.INFO, "%s", each)
            if self._tell is not None:
                try:
                    self._tell(each)
                except Exception:
                    _log.exception("the reload could not be told")
        return found

    def _look(self, *, asked: bool) -> list[Reload]:
        at = self._clock()
        day = self._today(at)
        seen = self._signature()
        still, self._seen = seen == self._seen, seen
        due = day != self._day
        again = self._bad is not None and seen == self._read and abs(at - self._bad[0]) >= _TRY_AGAIN
        if due and self._ready is not None and self._ready[0] == day and seen == self._read and not asked:
            # Read and checked the day before: nothing is left to go wrong, and nothing to wait for.
            found = self._apply(self._ready[1], at, asked)
            self._day = day
            found += self._prepare(at, still=True)
        elif asked or due or again or (seen != self._read and (still or self._read is None)):
            found = self._load(day, at, asked, still=asked or still)
        else:
            return []
        told = self._bad[1] if self._bad is not None and again and not (asked or due) else set()
        refused = any(each.kind == "refused" for each in found)
        self._bad = (at, {each.message for each in found}) if refused else None
        return [each for each in found if each.message not in told]

    def _today(self, at: datetime) -> date:
        """Return the day, which a clock that is set back over midnight by little does not change."""
        day = at.date()
        begun = self._day
        if begun > date.min and day == begun - _ONE_DAY:
            midnight = datetime.combine(begun, datetime.min.time(), UTC)
            if midnight - at < _STEP_BACK:
                return begun
        return day

    def _load(self, day: date, at: datetime, asked: bool, *, still: bool) -> list[Reload]:
        before = self._signature()
        self._day, self._ready, self._read = day, None, ()
        try:
            config: Config | TMMError | OSError = Config.load(self.path, on=day)
        except (TMMError, OSError) as error:
            config = error
        # Written while it was read, it may be of two versions; wrong at the first look or at midnight, when nobody
        # waits for it to be still, it may be half written. The next look reads again.
        if self._signature() != before or (not still and not isinstance(config, Config)):
            return []
        self._read = before
        if not isinstance(config, Config):
            return [self._refused(config, at, "")]
        return [*self._apply(config, at, asked), *self._prepare(at, still=still)]

    def _apply(self, config: Config, at: datetime, asked: bool) -> list[Reload]:
        before = self.mechanism.config
        # A worker that shares a block may find the work done by another one, which read the same files.
        own = {name: getattr(before, name) for name in ("source", "allocations_file", "candidate_file")}
        if replace(config, **own) == before:
            told = f"configuration {config.version} is in force already: nothing changed"
            return [Reload("unchanged", at, config.version, before.version, told)] if asked else []
        try:
            self.mechanism.apply(config)
        except (TMMError, OSError, ValueError) as error:
            return [self._refused(error, at, "")]
        told = f"configuration {config.version} is in force, in place of {before.version}"
        if config.effective_from is not None:
            told += f"; allocations of {config.effective_from}"
        if config.candidate_version != before.candidate_version:
            told += f"; candidate allocations {config.candidate_version or 'none'}"
        differing = [name for name in _AT_START if getattr(config, name) != getattr(before, name)]
        if differing:
            told += f"; not before the next start: {', '.join(differing)}"
        return [Reload("applied", at, config.version, before.version, told)]

    def _prepare(self, at: datetime, *, still: bool) -> list[Reload]:
        """Read what the files say of the next day."""
        day = self._day + _ONE_DAY
        try:
            config = Config.load(self.path, on=day)
        except (TMMError, OSError) as error:
            if not still:
                self._read = ()
                return []
            return [self._refused(error, at, f" from {day} on")]
        self._ready = (day, config)
        now = self.mechanism.config
        if config.version == now.version:
            return []
        told = f"configuration {config.version} is ready to be in force at midnight UTC, from {day} on"
        return [Reload("scheduled", at, config.version, now.version, told)]

    def _refused(self, error: Exception, at: datetime, when: str) -> Reload:
        version = self.mechanism.config.version
        if not isinstance(error, ConfigError):
            error = ConfigError(Mistake(str(error), file=str(self.path)))
        return Reload("refused", at, version, version, refusal(error, version, when), error.mistakes)

    def _signature(self) -> Signature:
        return tuple(_stat(path) for path in self._watched())

    def _named(self) -> Any:
        """Return the section [files] of tmm.toml; read again only if it changed."""
        stat = _stat(self.path)
        if self._toml is None or self._toml[0] != stat:
            self._toml = stat, load_toml(self.path).values.get("files", {})
        return self._toml[1]

    def _watched(self) -> Iterator[Path]:
        """Yield the files that decide. While tmm.toml cannot be read, those it named last."""
        yield self.path
        try:
            files = self._named()
        except ConfigError:
            pass
        else:
            named = (
                [files.get(key) for key in ("allocations", "candidate_allocations", "priority_list")]
                if isinstance(files, dict)
                else []
            )
            self._files = tuple(self.path.parent / name for name in named if isinstance(name, str))
        for path in self._files:
            yield path
            if path.is_dir():
                try:
                    yield from sorted(each for each in path.iterdir() if not each.name.startswith("."))
                except OSError:
                    continue  # it is told when it is read


def refusal(error: ConfigError, version: str, when: str = "") -> str:
    """Return the sentence that says that a configuration is refused, and which one stays in force."""
    more = f" (and {len(error.mistakes) - 1} more)" if len(error.mistakes) > 1 else ""
    return f"the configuration{when} is refused, {version} stays in force: {error.mistakes[0]}{more}"


def _stat(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return str(path), -1, -1, -1
    # A folder's own time changes with what is in it that does not decide.
    if path.is_dir():
        return str(path), 0, 0, found.st_ino
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino
