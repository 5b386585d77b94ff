"""The traffic of `tmm demo`: one day of Service Requests at DSP peak volume, made from a seed.

Rates per second are those of a real day at full roll-out; the day is played faster, so that about ten million
Service Requests cover all of it:

    mean 1,188/s (60 M meters at 52 messages a month), 60 % of it daily reads within about an hour
    00:05  daily reads             about 17,000/s: an ordinary peak, below the operating threshold
    00:30  one runaway User       12,000/s more, from a job that repeats one request
    17:30  freak weather          about 30,000/s, from everybody

Volumes and the illustrative priority list are derived, not published: DCC publishes no peak.

Only random 64-bit words and exact or elementwise arithmetic are used, no library distribution: the same seed
gives the same requests on every machine and with every version of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tmm_core.operations.traffic.drive import NS, STEP_NS, TrafficSecond
from tmm_core.policy.config import Config, PriorityList

__all__ = [
    "DAY_S",
    "MIXES",
    "PRIORITY_SRVS",
    "SRV_BITS",
    "STEPS_PER_S",
    "Day",
    "DemoUser",
    "demo_config",
    "demo_users",
    "srv_table",
    "uniform",
]

DAY_S = 86_400
STEPS_PER_S = NS // STEP_NS
"""Instants per second at which requests are decided: one every 5 ms."""

PRIORITY_SRVS = (
    "1.5", "1.6", "2.1", "2.2", "2.3", "2.5", "4.3", "4.4.4", "4.4.5", "4.13", "4.14", "4.18",
    "7.1", "7.2", "7.3", "7.4",
)  # fmt: skip
"""Illustrative: prepayment and supply; no install, commission or decommission. Not the Panel's list."""

SYSTEM_CAPACITY = 25_000.0
OPERATING_THRESHOLD = 20_000.0
UNKNOWN_ALLOCATION = 50.0
GUARANTEED_MINIMUM = 40.0
RUNAWAY = "Large Supplier 11"

# Units per second. The allocations add up to 15,950, with the unknown Users 16,000: four fifths of the
# operating threshold; the rest is left for what is on the priority list, which charges no allocation.
_LARGE = 12_750.0
_LARGE_SHARES = (210, 155, 125, 100, 85, 70, 60, 50, 42, 35, 28, 22, 18)  # thousandths: heavy tailed
_SMALL = (200.0, 160.0, 120.0, 100.0, 80.0, 60.0, 40.0, 25.0, 15.0)
_ELECTRICITY, _GAS, _OTHER = 6, 4, 20

MIXES: Mapping[str, Mapping[str, int]] = {
    # Everyday business of a supplier; about a quarter of it prepayment.
    "supplier": {
        "4.1.1": 60, "4.6.1": 80, "4.8.1": 110, "4.17": 30, "2.2": 120, "4.18": 50, "4.3": 30, "4.14": 20,
        "2.3": 10, "1.1.1": 40, "1.2.1": 50, "3.1": 30, "6.13": 60, "8.2": 70, "6.2.4": 40, "6.8": 20,
        "6.11": 30, "7.4": 30, "7.1": 8, "7.2": 8, "8.1.1": 30, "8.4": 20, "6.23": 15, "11.2": 20, "12.2": 18,
        "(unknown)": 1,
    },
    "network": {"4.10": 300, "6.13": 200, "4.8.1": 220, "7.4": 120, "8.2": 100, "6.5": 20, "4.2": 40},
    "other": {"4.8.1": 350, "4.17": 250, "8.2": 250, "6.2.4": 60, "12.1": 60, "9.1": 30},
    "daily reads": {"4.8.1": 450, "4.6.1": 330, "4.17": 100, "4.1.1": 90, "4.14": 30},
    # People without power, and people who look at what they use: reads, messages, top-ups, supply status.
    "supplier in bad weather": {
        "4.1.1": 330, "4.8.1": 180, "8.2": 130, "6.13": 130, "3.1": 100, "2.2": 70, "7.4": 40, "4.18": 20,
    },
    "network in bad weather": {"4.10": 350, "6.13": 250, "4.1.1": 200, "7.4": 200},
    "runaway": {"8.2": 1000},
}  # fmt: skip
"""Weights of SRVs by kind of business; all invented."""

# Hour of the day and factor, joined by straight lines. The first has a mean of about 1 over the day.
_BACKGROUND = ((0, 0.4), (5, 0.4), (7, 1.0), (9, 1.3), (12, 1.2), (16, 1.5), (19, 1.7), (22, 0.9), (24, 0.4))
_READS = ((0.08, 0.0), (0.33, 1.0), (1.08, 1.0), (1.33, 0.0))
_RUNAWAY = ((0.5, 0.0), (0.52, 1.0), (1.25, 1.0), (1.27, 0.0))
_WEATHER = ((17.5, 0.0), (17.65, 0.8), (17.9, 1.0), (18.3, 1.0), (18.55, 0.7), (18.75, 0.0))

SRV_BITS = 12
"""Of each random word, for the SRV: mixes are exact to 1/4096."""
_CELL_BITS = 16
_TIME_BITS = 24  # the highest, so that sorting the words sorts by time: 60 ns


@dataclass(frozen=True, slots=True)
class DemoUser:
    """One invented Service User. `allocation` and `reads` (its daily reads) are in units per second."""

    name: str
    category: str
    user_id: str
    allocation: float
    background: float
    reads: float
    weather: float


def demo_users() -> tuple[DemoUser, ...]:
    """Return the 52 Users: 13 large and 9 small suppliers, 10 networks, 20 Other SEC Parties."""
    made: list[DemoUser] = []

    def add(kind: str, category: str, number: int, rates: tuple[float, float, float, float]) -> None:
        user_id = f"90-B3-D5-1F-30-00-{len(made) + 1:02X}-00"
        made.append(DemoUser(f"{kind} {number:02d}", category, user_id, *rates))

    for number, share in enumerate(_LARGE_SHARES, 1):
        rates = (_LARGE * share / 1000, 0.375 * share, 15.2 * share, 23.0 * share)
        add("Large Supplier", "large-supplier", number, rates)
    for number, rate in enumerate(_SMALL, 1):
        add("Small Supplier", "small-supplier", number, (rate, rate / 25, rate * 1.1, rate * 1.4))
    for number in range(1, _ELECTRICITY + 1):
        add("Electricity Network", "electricity-network", number, (200.0, 6.0, 90.0, 750.0))
    for number in range(1, _GAS + 1):
        add("Gas Network", "gas-network", number, (100.0, 3.0, 20.0, 150.0))
    for number in range(1, _OTHER + 1):
        add("Other SEC Party", "other", number, (GUARANTEED_MINIMUM, 0.8, 15.0, 8.0))
    return tuple(made)


def demo_config() -> Config:
    """Return the configuration of the demonstration."""
    users = demo_users()
    return Config(
        system_capacity=SYSTEM_CAPACITY,
        operating_threshold=OPERATING_THRESHOLD,
        allocations={user.name: user.allocation for user in users},
        user_ids={user.user_id: user.name for user in users},
        categories={user.name: user.category for user in users},
        priority=PriorityList(
            PRIORITY_SRVS, version="demo", source="illustrative, made for the demonstration"
        ),
        unknown_allocation=UNKNOWN_ALLOCATION,
    )


@dataclass(frozen=True, slots=True)
class Day:
    """The traffic of a day from a seed.

    Attributes
    ----------
    seed : int
        0 to 2**63 - 1.
    seconds : int
        Simulated seconds the day is played in; 86,400: as long as it is. Rates stay, durations shrink.
    """

    seed: int = 1
    seconds: int = 3600

    @property
    def speed(self) -> float:
        """Seconds of the day in one simulated second."""
        return DAY_S / self.seconds

    def traffic(
        self, slot_of: Callable[[str], int], number_of: Callable[[str], int]
    ) -> Iterator[TrafficSecond]:
        """Make the Service Requests, second by second.

        Parameters
        ----------
        slot_of, number_of : callable
            `Mechanism.user` and `Mechanism.srv`.

        Yields
        ------
        TrafficSecond
        """
        users = demo_users()
        words = np.random.PCG64(self.seed)
        cells = _cells(users, words)
        slots = np.array([slot_of(cell.user) for cell in cells], dtype=np.uint32)
        mixes = sorted({cell.mix for cell in cells})
        tables = np.stack([srv_table(MIXES[mix], number_of) for mix in mixes])
        mix_of = np.array([mixes.index(cell.mix) for cell in cells], dtype=np.int64) << SRV_BITS
        tables = tables.reshape(-1)
        shapes = np.stack([_shape(cell.knots, cell.shift_h, self.seconds) for cell in cells])
        peaks = np.array([cell.peak for cell in cells])
        numbers = np.arange(len(cells), dtype=np.uint64) << np.uint64(SRV_BITS)
        kept = np.uint64(((1 << 64) - (1 << (SRV_BITS + _CELL_BITS))) | ((1 << SRV_BITS) - 1))
        for second in range(self.seconds):
            draws = uniform(words, 2 * len(cells))
            # Each cell's rate wanders by 15 % each way; the fraction of a request left over is drawn.
            rates = peaks * shapes[:, second] * (0.85 + 0.3 * draws[: len(cells)])
            counts = (rates + draws[len(cells) :]).astype(np.int64)
            keys = words.random_raw(int(counts.sum())) & kept
            keys |= np.repeat(numbers, counts)
            keys.sort()
            cell = ((keys >> np.uint64(SRV_BITS)) & np.uint64((1 << _CELL_BITS) - 1)).astype(np.int64)
            srv = (keys & np.uint64((1 << SRV_BITS) - 1)).astype(np.int64)
            moment = (keys >> np.uint64(64 - _TIME_BITS)).astype(np.int64)
            yield TrafficSecond(
                second, slots[cell], tables[mix_of[cell] + srv], (moment * STEPS_PER_S) >> _TIME_BITS
            )


@dataclass(frozen=True, slots=True)
class _Cell:
    """One stream of requests: who sends which mix, when, and how many per second at its peak."""

    user: str
    mix: str
    knots: Sequence[tuple[float, float]]
    peak: float
    shift_h: float = 0.0


def _cells(users: Sequence[DemoUser], words: np.random.PCG64) -> list[_Cell]:
    cells = []
    # Daily reads start within six minutes of each other; the weather is worse in some regions.
    late_h = 0.1 * uniform(words, len(users))
    storm = 0.6 + 0.8 * uniform(words, len(users))
    usual = [user.weather for user in users]
    storm *= math.fsum(usual) / math.fsum(storm * usual)  # whatever the seed, the same weather over all
    for number, user in enumerate(users):
        kind = user.category.split("-")[-1]
        stormy = kind if kind == "other" else f"{kind} in bad weather"
        cells += [
            _Cell(user.name, kind, _BACKGROUND, user.background),
            _Cell(user.name, "daily reads", _READS, user.reads, float(late_h[number])),
            _Cell(user.name, stormy, _WEATHER, user.weather * float(storm[number])),
        ]
    cells.append(_Cell(RUNAWAY, "runaway", _RUNAWAY, 12_000.0))
    cells.append(
        _Cell("90-B3-D5-1F-30-FF-FF-FF", "other", _BACKGROUND, 3.0)
    )  # an identifier nobody has named
    return cells


def uniform(words: np.random.PCG64, n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return `n` numbers from 0 to below 1: the highest 53 bits of each word, exactly."""
    return (words.random_raw(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _shape(
    knots: Sequence[tuple[float, float]], shift_h: float, seconds: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a factor for each simulated second, from straight lines through hours of the day."""
    # Not np.interp: its compiled loop may be contracted, and differ in the last bit, where these cannot.
    hours = (np.arange(seconds) + 0.5) * 24 / seconds
    at = np.array([hour + shift_h for hour, _ in knots])
    factors = np.array([factor for _, factor in knots])
    place = np.clip(np.searchsorted(at, hours, side="right"), 1, len(knots) - 1)
    slopes = (factors[1:] - factors[:-1]) / (at[1:] - at[:-1])
    inside = np.clip(hours, at[0], at[-1])
    shape: np.ndarray[Any, np.dtype[np.float64]] = (
        factors[place - 1] + (inside - at[place - 1]) * slopes[place - 1]
    )
    return shape


def srv_table(
    mix: Mapping[str, int], number_of: Callable[[str], int]
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return SRV numbers for each value of the random bits, in proportion to the mix."""
    size, total = 1 << SRV_BITS, sum(mix.values())
    counts = {code: max(1, weight * size // total) for code, weight in mix.items()}
    counts[max(mix, key=lambda code: mix[code])] += size - sum(counts.values())
    return np.repeat(
        np.array([number_of(code) for code in counts], dtype=np.uint16),
        np.array(list(counts.values()), dtype=np.int64),
    )
