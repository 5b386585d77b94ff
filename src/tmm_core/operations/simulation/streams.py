"""How many Service Requests each User sends in each second, and a random word for each of them.

Every stream of every User draws from a generator of its own, so that nobody's traffic depends on another's. What
is the same for all streams is computed for all of them at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tmm_core.operations.simulation.scenario import Scenario, Traffic
from tmm_core.operations.traffic import Floats, Ints, Raw

_ROOM_S = 20  # seconds of the highest rate that are drawn ahead, and the most that are asked for at once
_LEAST_ROOM = 256
_AHEAD_S = 256  # seconds whose shapes are computed at once
_PAIR = np.array([[0], [1]])
_DROPPED, _UNIT = np.array([11], dtype=np.uint64), np.array([2.0**-53])
_JUMPS = ("on-off", "mmpp")


@dataclass(frozen=True, slots=True)
class Stream:
    """Traffic of one User: whose, which of `Scenario.traffic`, and Service Requests per second at factor 1."""

    user: str
    place: int
    rate: float


@dataclass(frozen=True, slots=True, eq=False)
class _Jumps:
    """Streams whose rate jumps: their numbers, how long each state is kept on average, and its factor."""

    streams: Ints
    dwell_s: Floats
    factors: Floats


@dataclass(slots=True, eq=False)
class Drawn:
    """A random word for each Service Request of some seconds, until the next ones are drawn.

    Attributes
    ----------
    begins, counts : ndarray of int64, shape (streams, seconds)
        Where the words of a stream for a second begin, and how many they are. Between two seconds of a stream there
        are the words that said how many.
    """

    begins: Ints
    counts: Ints
    _words: Raw | None
    _sizes: Ints | None = None

    @property
    def sizes(self) -> Ints:
        """How many words there are, of shape (streams, seconds, 2): those of a second, and those up to the next one."""
        if self._sizes is None:
            self._sizes = np.stack([self.counts, np.zeros_like(self.counts)], axis=2)
            self._sizes[:, :-1, 1] = self.begins[:, 1:] - self.begins[:, :-1] - self.counts[:, :-1]
        return self._sizes

    def of(self, streams: slice, first: int, end: int) -> Raw:
        """Return the words of some streams from one second up to another, and those between them; not to be written."""
        begins = self.begins[streams, first]
        ends = self.begins[streams, end - 1] + self.counts[streams, end - 1]
        if self._words is None:
            raise RuntimeError("other seconds have been drawn since: look at these before")
        parts = list(map(self._words.__getitem__, map(slice, begins.tolist(), ends.tolist())))
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [self._words[:0]])

    def close(self) -> None:
        """Tell that the words are gone."""
        self._words = None


class Streams:
    """Draws the Service Requests of streams, second by second. *Not thread-safe.*

    Parameters
    ----------
    streams : sequence of Stream
        Those of one `Traffic` next to each other.

    Notes
    -----
    Each generator's words are used in order, one after the other: for a rate that jumps one or two, then two for
    the number of Service Requests, then one for each of them. They are drawn some seconds ahead.
    """

    def __init__(self, scenario: Scenario, streams: Sequence[Stream]) -> None:
        self._scenario = scenario
        self._sources = [
            np.random.PCG64([scenario.seed, zlib.crc32(each.user.encode()), each.place]) for each in streams
        ]
        traffic = [scenario.traffic[each.place] for each in streams]
        first = [uniform(source.random_raw(1))[0] for source in self._sources]
        self._late = np.array([each.spread_s for each in traffic]) * np.array(first)
        # Rates that jump begin anywhere.
        self._state = np.array(
            [
                int(uniform(source.random_raw(1))[0] * len(each.factors)) if each.factors else 0
                for source, each in zip(self._sources, traffic, strict=True)
            ],
            dtype=np.int64,
        )
        self._rates = np.array([each.rate for each in streams])
        wander = np.array([each.wander for each in traffic])
        self._least, self._twice = 1 - wander, 2 * wander
        highest = np.array([_highest(each) for each in traffic])
        self._need = (self._rates * highest * (1 + wander)).astype(np.int64) + 8
        room = np.maximum(_LEAST_ROOM, _ROOM_S * self._need)
        self._end: Ints = np.cumsum(room)
        self._begin: list[int] = (self._end - room).tolist()
        self._at: Ints = self._end.copy()  # nothing is drawn yet
        self._words: Raw = np.empty(int(room.sum()), dtype=np.uint64)
        self._drawn = Drawn(self._at, self._at, None)
        self._two = np.empty((2, self._at.size), dtype=np.int64)  # places of two words of each stream
        self._drawn_from = -1
        self._shapes = np.empty((0, 0))
        self._parts: list[tuple[Traffic, slice]] = []
        self._jumps: list[_Jumps] = []
        for place, each in enumerate(scenario.traffic):
            mine = [number for number, stream in enumerate(streams) if stream.place == place]
            if mine:
                self._parts.append((each, slice(mine[0], mine[-1] + 1)))
            if mine and each.kind in _JUMPS:
                self._jumps.append(_Jumps(np.array(mine), np.array(each.dwell_s), np.array(each.factors)))

    def seconds(self, first: int, number: int) -> Drawn:
        """Draw the Service Requests of some seconds; the last ones are gone then."""
        self._drawn.close()
        for stream in np.flatnonzero(self._at + number * self._need > self._end).tolist():
            self._draw_ahead(stream)
        begins, counts = np.empty((2, number, self._at.size), dtype=np.int64)
        for place in range(number):
            self._count(first + place, begins[place], counts[place])
        self._drawn = Drawn(begins.T, counts.T, self._words)
        return self._drawn

    def _count(self, second: int, begins: Ints, counts: Ints) -> None:
        """Tell where the words of each stream's Service Requests begin, and how many there are."""
        rates = self._rates * self._factors(second)
        sends = rates > 0
        np.add(self._at, _PAIR, out=self._two)
        wander, round_up = uniform(self._words.take(self._two))
        wander *= self._twice
        wander += self._least
        wander *= rates
        wander += round_up
        counts[:] = wander
        counts *= sends
        self._at += 2 * sends
        begins[:] = self._at
        self._at += counts

    def _draw_ahead(self, number: int) -> None:
        begin, at, end = self._begin[number], int(self._at[number]), int(self._end[number])
        left = begin + end - at
        self._words[begin:left] = self._words[at:end]
        self._words[left:end] = self._sources[number].random_raw(at - begin)
        self._at[number] = begin

    def _draws(self, which: Ints) -> Floats:
        """Return the next number from 0 to below 1 of some streams."""
        drawn = uniform(self._words[self._at[which]])
        self._at[which] += 1
        return drawn

    def _factors(self, second: int) -> Floats:
        place = second % _AHEAD_S
        if second - place != self._drawn_from:
            self._drawn_from = second - place
            self._shapes = self._shapes_from(second - place)
        factors: Floats = self._shapes[place]
        for jumps in self._jumps:
            if factors[jumps.streams[0]]:  # within its time
                factors[jumps.streams] = self._jumping(jumps)
        return factors

    def _shapes_from(self, second: int) -> Floats:
        """Return the factors of the next seconds by second and stream; 1 for a rate that jumps, in its time."""
        shapes = np.ones((_AHEAD_S, self._rates.size))
        seconds = np.arange(second, second + _AHEAD_S)[:, np.newaxis]
        for traffic, part in self._parts:
            late = self._late[part]
            if traffic.kind == "diurnal":
                scenario = self._scenario
                hour = (scenario.begins_h + (seconds + 0.5) * scenario.speed / 3600) % 24
                shapes[:, part] = _along(traffic.knots, hour - late * scenario.speed / 3600)
            elif traffic.kind == "burst":
                since = seconds + 0.5 - traffic.at_s - late
                shapes[:, part] = _trapezium(since, traffic.lasts_s, traffic.ramp_s)
            elif traffic.lasts_s:
                shapes[:, part] = (traffic.at_s <= seconds) & (seconds < traffic.at_s + traffic.lasts_s)
        return shapes

    def _jumping(self, jumps: _Jumps) -> Floats:
        streams, factors = jumps.streams, jumps.factors
        state = self._state[streams]
        jump = self._draws(streams) * jumps.dwell_s[state] < 1
        if jump.any():  # to any of the others, all alike
            step = 1 + (self._draws(streams[jump]) * (factors.size - 1)).astype(np.int64)
            state[jump] = (state[jump] + step) % factors.size
            self._state[streams] = state
        found: Floats = factors[state]
        return found


def uniform(words: Raw) -> Floats:
    """Return numbers from 0 to below 1: the highest 53 bits of each word, exactly."""
    found: Floats = (words >> _DROPPED).astype(np.float64)
    found *= _UNIT
    return found


def _highest(traffic: Traffic) -> float:
    """Return the highest factor of a stream."""
    if traffic.kind == "diurnal":
        return max(0.0, *(factor for _, factor in traffic.knots))
    return max(0.0, *traffic.factors) if traffic.kind in _JUMPS else 1.0


def _along(knots: Sequence[tuple[float, float]], x: Floats) -> Floats:
    """Return the values at x on straight lines through knots."""
    # Not np.interp: its compiled loop may be contracted, and differ in the last bit, where these cannot.
    xs, ys = (np.array(each) for each in zip(*knots, strict=True))
    place = np.searchsorted(xs, x, side="left")
    right = place.clip(1, xs.size - 1)
    left = right - 1
    between: Floats = ys[left] + (x - xs[left]) * (ys[right] - ys[left]) / (xs[right] - xs[left])
    return np.where(place == 0, ys[0], np.where(place == xs.size, ys[-1], between))


def _trapezium(t: Floats, lasts: float, ramp: float) -> Floats:
    """Rise within `ramp` from 0 to 1 at the beginning, and fall as fast at the end."""
    inside = (t > 0) & (t < lasts)
    if ramp <= 0:
        return inside.astype(np.float64)
    return np.where(inside, np.minimum(np.minimum(1.0, t / ramp), (lasts - t) / ramp), 0.0)
