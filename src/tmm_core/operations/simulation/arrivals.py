"""The new Service Requests of a scenario, second by second, from seeds of each User's own.

Only random 64-bit words and elementwise arithmetic are used: the same seed gives the same requests on every
machine. A User's traffic does not change when other Users are added or taken away.

Service Requests are put in the order of time, or only counted. Where nothing is refused nothing but numbers counts:
how many each User sends in each step, on the priority list and not. They are counted from the random words as they
were drawn, stream by stream, and nothing is put in order.

Past traffic is added to them: the lines of a CSV file, or the counts of an event log.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.operations.simulation import BORN, SRV, TIME_BITS, USER, Words
from tmm_core.operations.simulation.scenario import Scenario, Traffic
from tmm_core.operations.simulation.streams import Drawn, Stream, Streams
from tmm_core.operations.traffic import Ints, Raw, Srvs, Users
from tmm_core.operations.traffic.drive import NS, STEP_NS, TrafficSecond
from tmm_core.operations.traffic.logged_traffic import LoggedTraffic, names_event_log
from tmm_core.policy.tables import begins_of

Codes = Users
Past = tuple[Codes, Codes]
"""Of past traffic in a second: User slot << 8 | SRV, and times within it in units of 2**-`TIME_BITS`."""

SRV_BITS = 12
"""Of each random word, for the SRV: mixes are exact to 1/4096."""


_UNKNOWN = "(unknown)"
_U = np.uint64
_LOW, _HIGH = _U((1 << SRV_BITS) - 1), _U(64 - TIME_BITS)
_WORDS = 1 << 16  # that go through several operations together: their arrays stay in the cache
_FEW = 3  # cells of a table for each word in it
_CELLS = 1 << 17  # of a table of counts, likewise


class Arrivals:
    """Makes the new Service Requests of a scenario. *Not thread-safe.*

    Parameters
    ----------
    slot_of, number_of : callable
        `Mechanism.user` and `Mechanism.srv`.

    Raises
    ------
    TMMError
        A file to replay cannot be used.
    """

    def __init__(
        self, scenario: Scenario, slot_of: Callable[[str], int], number_of: Callable[[str], int]
    ) -> None:
        self._steps = scenario.steps_per_s
        self._replayed: list[_Lines | _Logged] = []
        portfolio = {user.name: user.portfolio for user in scenario.users}
        portfolio[_UNKNOWN] = 1.0
        streams: list[Stream] = []
        tables: list[Codes] = []  # of each traffic
        ends = []
        for place, traffic in enumerate(scenario.traffic):
            if traffic.file is not None:
                self._replayed.append(replayed(traffic, slot_of, number_of))
                continue
            senders = [name for name in portfolio if traffic.is_from(name)]
            total = sum(portfolio[name] for name in senders) or 1.0
            streams += [Stream(name, place, traffic.rate * portfolio[name] / total) for name in senders]
            ends.append(len(streams))
            tables.append(srv_table(scenario.mixes[traffic.mix], number_of).astype(np.uint32))
        self._streams = Streams(scenario, streams)
        slots = np.array([slot_of(stream.user) for stream in streams], dtype=np.uint32)
        listed = np.zeros(1 << USER - SRV, dtype=np.uint32)
        listed[sorted({number_of(code) for code in scenario.config.priority_srvs} - {0})] = 1
        self._senders = Senders(slots, ends, tables, listed)

    def seconds(self, first: int, number: int = 1) -> Fresh:
        """Make the Service Requests of some seconds; called for one after the other."""
        past = [self._past(second) for second in range(first, first + number)] if self._replayed else []
        return Fresh(self._streams.seconds(first, number), self._senders, self._steps, first, past)

    def _past(self, second: int) -> list[Past]:
        """Return the past traffic of a second."""
        found = [each.second(second) for each in self._replayed]
        return [((words >> SRV).astype(np.uint32), times.astype(np.uint32)) for words, times in found]

    def close(self) -> None:
        """Close the files that are replayed. Harmless when repeated."""
        for each in self._replayed:
            each.close()


def srv_table(mix: Mapping[str, int], number_of: Callable[[str], int]) -> Srvs:
    """Return SRV numbers for each value of the random bits, in proportion to the mix."""
    size, total = 1 << SRV_BITS, sum(mix.values())
    counts = {code: max(1, weight * size // total) for code, weight in mix.items()}
    counts[max(mix, key=lambda code: mix[code])] += size - sum(counts.values())
    return np.repeat(
        np.array([number_of(code) for code in counts], dtype=np.uint16),
        np.array(list(counts.values()), dtype=np.int64),
    )


class Senders(NamedTuple):
    """Whose streams they are, and of what: `slots` of each, and of each traffic SRVs by the random bits.

    `ends` says how many streams there are up to the end of each traffic, `listed` which SRV numbers are on the
    priority list: 1, or 0.
    """

    slots: Codes
    ends: list[int]
    srvs: list[Codes]
    listed: Codes


class InTime(NamedTuple):
    """Words of one second in the order of time, and where each step of it begins and the last one ends."""

    words: Words
    edges: list[int]


class Counted(NamedTuple):
    """How many there are.

    `edges`, of shape (seconds, steps + 1), says how many come before each step, and before the next second. `alike`, of
    shape (seconds, parts, 2, users), says how many come in so many steps at a time, by whether they are on the priority
    list and by User slot.
    """

    edges: Ints
    alike: Ints


class Fresh:
    """The new Service Requests of some seconds, put in order or counted when they are looked at.

    Parameters
    ----------
    steps : int
        Of a second.
    first : int
        The first second.
    past : sequence of list of Past
        What is added to each second; empty where nothing is.
    """

    __slots__ = ("_counted", "_drawn", "_in_time", "_past", "_senders", "_steps", "first")

    def __init__(
        self, drawn: Drawn, senders: Senders, steps: int, first: int, past: Sequence[list[Past]] = ()
    ) -> None:
        self._drawn, self._senders, self._steps, self._past, self.first = drawn, senders, steps, past, first
        self._in_time: dict[int, InTime] = {}
        self._counted: dict[tuple[int, int], Counted] = {}

    @property
    def seconds(self) -> int:
        return int(self._drawn.counts.shape[1])

    def in_time(self, place: int) -> InTime:
        """Return one second, put in order once for all policies."""
        if place not in self._in_time:
            codes, times = self._second(place)
            order = _by_time(times)
            step = _steps_of(times.take(order), self._steps)
            edges = np.searchsorted(step, np.arange(self._steps + 1)).tolist()
            words = step.astype(np.int64)
            words += (self.first + place) * self._steps
            words <<= BORN - SRV
            words |= codes.take(order)
            words <<= SRV
            self._in_time[place] = InTime(words, edges)
        return self._in_time[place]

    def counted(self, together: int, users: int) -> Counted:
        """Return how many there are, counted once for all policies.

        Parameters
        ----------
        together : int
            Steps at a time.
        users : int
            How many slots there are.
        """
        if (together, users) not in self._counted:
            self._counted[together, users] = self._count(together, users)
        return self._counted[together, users]

    def _second(self, place: int) -> Past:
        """Return all of a second as they were drawn, stream by stream, and what is added."""
        slots, ends, srvs, _ = self._senders
        sizes = self._drawn.counts[:, place]
        codes, raw = slots.repeat(sizes) << np.uint32(8), self._drawn.of(slice(None), place, place + 1)
        sums = [0, *sizes.cumsum().tolist()]
        for table, (begin, end) in zip(srvs, pairwise([0, *ends]), strict=True):
            part = slice(sums[begin], sums[end])
            codes[part] |= table.take((raw[part] & _LOW).view(np.int64))
        times = (raw >> _HIGH).astype(np.uint32)
        if not self._past:
            return codes, times
        more = [(codes, times), *self._past[place]]
        return np.concatenate([each for each, _ in more]), np.concatenate([each for _, each in more])

    # --- counting

    def _count(self, together: int, users: int) -> Counted:
        steps, seconds = self._steps, self.seconds
        of_step = np.zeros((seconds, steps), dtype=np.int64)
        alike = np.zeros((users, seconds, 2, -(-steps // together)), dtype=np.int64)
        for slots, when, in_step, in_part in self._tallies(together):
            of_step[when] += in_step
            for slot, mine in zip(slots, in_part, strict=True):
                alike[slot, when] += mine
        edges = np.zeros((seconds, steps + 1), dtype=np.int64)
        edges[:, 1:] = of_step.cumsum().reshape(seconds, steps)
        edges[1:, 0] = edges[:-1, -1]
        return Counted(edges, alike.transpose(1, 3, 2, 0))

    def _tallies(self, together: int) -> Iterator[tuple[list[int], slice, Ints, Ints]]:
        """Yield some User slots and seconds, and how many there are by second and step, and by slot, second, list and
        part.
        """
        senders, steps = self._senders, self._steps
        parts = -(-steps // together)
        for table, (begin, end) in zip(senders.srvs, pairwise([0, *senders.ends]), strict=True):
            listed = senders.listed[table]
            for streams, seconds in self._pieces(begin, end, parts):
                counted = self._tally(streams, seconds, listed, together)
                yield senders.slots[streams].tolist(), seconds, *counted
        for place, past in enumerate(self._past):
            for codes, times in past:
                slots, senders_of = np.unique(codes >> 8, return_inverse=True)
                step = _steps_of(times, steps)
                kinds = (senders_of * 2 + senders.listed[codes & 0xFF]) * parts + step // together
                in_part = _binned(kinds, (slots.size, 1, 2, parts))
                yield slots.tolist(), slice(place, place + 1), _binned(step, (1, steps)), in_part

    def _pieces(self, begin: int, end: int, parts: int) -> Iterator[tuple[slice, slice]]:
        """Yield streams and seconds to count at once, of some streams: a few of these, or a part of a large one."""
        sizes, seconds = self._drawn.counts[begin:end].sum(axis=1).tolist(), self.seconds
        most = max(1, _CELLS // (seconds * parts * 2))
        first, words = begin, 0
        for stream, size in enumerate(sizes, begin):
            words += size
            if stream > first and (words > _WORDS or stream - first >= most):
                yield slice(first, stream), slice(0, seconds)
                first, words = stream, size
            if size > _WORDS:
                every = max(1, seconds * _WORDS // size)
                for second in range(0, seconds, every):
                    yield slice(stream, stream + 1), slice(second, min(second + every, seconds))
                first, words = stream + 1, 0
        if first < end:
            yield slice(first, end), slice(0, seconds)

    def _tally(self, streams: slice, seconds: slice, listed: Codes, together: int) -> tuple[Ints, Ints]:
        """Count by second and step, and by stream, second, list and part; `listed` is by the random bits."""
        drawn, steps, parts = self._drawn, self._steps, -(-self._steps // together)
        raw = drawn.of(streams, seconds.start, seconds.stop)
        sizes = drawn.sizes[streams, seconds].copy()
        sizes[:, -1, 1] = 0
        step = _steps_of((raw >> _HIGH).astype(np.uint32), steps)
        kinds = np.empty(raw.size, dtype=np.uint32)
        listed.take((raw & _LOW).view(np.int64), out=kinds, mode="wrap")
        shape = sizes.shape[:2]
        rows = np.arange(shape[0] * shape[1])
        if rows.size * 2 * steps <= _FEW * raw.size:
            # Adding up the steps is less work than counting everything twice.
            kinds *= np.uint32(steps)
            kinds += step
            kinds += _begins(rows, sizes, 2 * steps)
            table = _binned(kinds, (*shape, 2, steps))
            return np.einsum("abcd->bd", table), _in_parts(table, together)
        of_step = step + _begins(rows % shape[1], sizes, steps)
        step //= np.uint32(together)
        kinds *= np.uint32(parts)
        kinds += step
        kinds += _begins(rows, sizes, 2 * parts)
        return _binned(of_step, (shape[1], steps)), _binned(kinds, (*shape, 2, parts))


def _begins(rows: Ints, sizes: Ints, width: int) -> Codes:
    """Return where the row begins in which each word is counted; of words between two seconds, where one more would."""
    begins = np.full((rows.size, 2), (rows[-1] + 1) * width, dtype=np.uint32)
    begins[:, 0] = rows * width
    return begins.ravel().repeat(sizes.ravel())


def _binned(kinds: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Ints:
    """Count whole numbers into a table; larger ones are left out."""
    size = prod(shape)
    return np.bincount(kinds, minlength=size)[:size].reshape(shape)


def _in_parts(table: Ints, together: int) -> Ints:
    """Return the sums of so many numbers at a time along the last axis."""
    steps = table.shape[-1]
    if steps % together == 0:
        # Faster than `reduceat`, as parts are short.
        found: Ints = np.einsum("...ij->...i", table.reshape(*table.shape[:-1], -1, together))
        return found
    return np.add.reduceat(table, np.arange(0, steps, together), axis=-1)


def _steps_of(times: Codes, steps: int) -> Codes:
    """Return the steps of times within a second."""
    if steps > 1 << 32 - TIME_BITS:
        return ((times.astype(np.uint64) * _U(steps)) >> _U(TIME_BITS)).astype(np.uint32)
    found: Codes = times * np.uint32(steps)
    found >>= TIME_BITS
    return found


def _by_time(times: Codes) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the order of times, and of their places where they are the same."""
    # Two stable passes over short words: NumPy sorts these by digits, several times faster than whole words.
    order = np.argsort(times.astype(np.uint8), kind="stable")
    return order.take(np.argsort((times >> 8).astype(np.uint16).take(order), kind="stable"))


_STEPS = NS // STEP_NS


def replayed(
    traffic: Traffic, slot_of: Callable[[str], int], number_of: Callable[[str], int]
) -> _Lines | _Logged:
    """Open the file of ``replay`` traffic, to be read once.

    Its `second` returns words without the step they are born in, and their times in 2**-`TIME_BITS` s.

    Raises
    ------
    TMMError
        It cannot be used; an `EventLogError` where it is an event log.
    """
    path = traffic.file
    assert path is not None
    try:
        if names_event_log(path):
            return _Logged(path, logged_traffic(traffic), slot_of, number_of)
        return _Lines(path, slot_of, number_of)
    except OSError as error:
        raise TMMError(f"{path}: {error.strerror or error}") from None


def logged_traffic(traffic: Traffic) -> LoggedTraffic:
    """Open the event log of ``replay`` traffic, in its time.

    Raises
    ------
    EventLogError
        There is none, or it cannot be read.
    """
    assert traffic.file is not None
    until = {} if traffic.until_s is None else {"until_s": traffic.until_s}
    return LoggedTraffic([traffic.file], since_s=traffic.since_s or 0, **until)


class _Lines:
    """Lines ``second,user,srv`` of a CSV file, in order of time; seconds since the start, with decimals."""

    def __init__(self, path: Path, slot_of: Callable[[str], int], number_of: Callable[[str], int]) -> None:
        self._path, self._slot_of, self._number_of = path, slot_of, number_of
        self._lines = self._read()
        self._next = next(self._lines, None)

    def _read(self) -> Iterator[tuple[float, int]]:
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"second", "user", "srv"} - set(rows.fieldnames or ())
            if missing:
                raise TMMError(
                    f"{self._path}:1:1: found no column {sorted(missing)[0]}, expected second, user and srv"
                )
            before = 0.0
            for row in rows:
                try:
                    at = float(row["second"])
                except (TypeError, ValueError):
                    at = -1.0
                if not before <= at < 1e9:
                    fault = f"second {row['second']!r} must be a number, 0 or more, not below the line before"
                    column = self._column(rows.line_num, list(rows.fieldnames or ()).index("second"))
                    raise TMMError(f"{self._path}:{rows.line_num}:{column}: {fault}")
                before = at
                yield at, self._slot_of(row["user"]) << USER | self._number_of(row["srv"]) << SRV

    def _column(self, number: int, place: int) -> int:
        """Return where a cell begins; the end of the line if that is shorter."""
        with self._path.open(encoding="utf-8", newline="") as file:
            line = next(islice(file, number - 1, None)).rstrip("\r\n")
        begins = begins_of(line, ",")
        return begins[place] if place < len(begins) else len(line) + 1

    def second(self, second: int) -> tuple[Words, Raw]:
        words, times = [], []
        while self._next is not None and self._next[0] < second + 1:
            at, word = self._next
            words.append(word)
            times.append(int((at - second) * 2**TIME_BITS))
            self._next = next(self._lines, None)
        return np.array(words, dtype=np.int64), np.array(times, dtype=np.uint64)

    def close(self) -> None:
        self._lines.close()  # type: ignore[attr-defined]


class _Logged:
    """The counts of an event log, as `tmm replay` spreads them; second 0 is the first with a Service Request."""

    def __init__(
        self,
        path: Path,
        traffic: LoggedTraffic,
        slot_of: Callable[[str], int],
        number_of: Callable[[str], int],
    ) -> None:
        self._path, self._traffic, self._slot_of, self._known = path, traffic, slot_of, False
        self._seconds = traffic.seconds(self._slot, number_of)
        self._next = next(self._seconds, None)
        if self._next is None:
            fault = "the event log has no Service Request in this time"
        elif not self._known:
            fault = f"no User of the event log is one of the scenario: {', '.join(traffic.notes.unknown_users[:3])}"
        else:
            return
        self.close()
        raise TMMError(f"{path}: {fault}")

    def _slot(self, name: str) -> int:
        slot = self._slot_of(name)
        self._known |= slot > 0
        return slot

    def second(self, second: int) -> tuple[Words, Raw]:
        notes, found = self._traffic.notes, self._next
        if notes.bad:
            raise TMMError(
                f"{self._path}: {notes.first_bad[0]}: tmm replay leaves such rows out and counts them"
            )
        if found is None or found.second > second:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        self._next = next(self._seconds, None)
        return _words(found), -((-found.steps.astype(np.int64) << TIME_BITS) // _STEPS).astype(np.uint64)

    def close(self) -> None:
        self._traffic.close()


def _words(found: TrafficSecond) -> Words:
    return found.users.astype(np.int64) << USER | found.srvs.astype(np.int64) << SRV
