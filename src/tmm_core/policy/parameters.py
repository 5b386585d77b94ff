"""The parameters of the allocation formula, from a strict TOML file.

The formula and every number in the shipped example are this project's own and illustrative: Annex C of
SECMP0067, which holds the real ones, is not public. A parameters file has to say so itself (``label``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tmm_core.errors import ConfigError, Mistake
from tmm_core.policy.portfolio import METER_KINDS
from tmm_core.policy.tables import read_file
from tmm_core.policy.toml_places import LARGEST_FILE, Toml, read_toml
from tmm_core.policy.validation import CATEGORIES, MAX_THRESHOLD, did_you_mean, hidden_in, shown

__all__ = ["NOTICE", "QUANTA_PER_UNIT", "SECONDS_PER_DAY", "Parameters"]

NOTICE = "Our own illustrative formula: Annex C of SECMP0067 is not public."
"""The label of every parameters file, carried by every output of the formula."""

QUANTA_PER_UNIT = 1000
"""Allocations are whole thousandths of a unit per second."""

SECONDS_PER_DAY = 86_400

_MOST_DECIMALS = 9
_SOURCES = ("portfolio", "forecast", "actual")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the formula is told beside the portfolio; every number exact. Made by `load`, which checks.

    Attributes
    ----------
    version : str
        Name of this version of the parameters.
    system_capacity, operating_threshold : Fraction
        Units per second, as in ``tmm.toml``.
    priority_share : Fraction
        Share of the operating threshold kept for priority traffic; from 0, below 1.
    unknown_allocation : Fraction
        Units per second kept for all unknown Users together.
    requests_per_day : mapping of str to mapping of str to Fraction
        Expected Service Requests a day of one smart meter or Device, by category and kind, before the weight
        of prepayment.
    prepayment_weight : Fraction
        Factor on the Service Requests of prepayment meters.
    busy_hour_factor : mapping of str to Fraction
        Rate of the busy hour over the rate of the mean hour, by category; 1 to 24.
    guaranteed_minimum : Fraction
        Least allocation of an Other SEC Party, units per second.
    minimum : Fraction
        Least allocation of everyone else, units per second.
    blend : tuple of Fraction
        Shares of portfolio, forecast and actual in the expected Service Requests; they add up to 1.
    digest : str
        First twelve hexadecimal digits of SHA-256 over the file; empty if there was none.
    """

    version: str
    system_capacity: Fraction
    operating_threshold: Fraction
    priority_share: Fraction
    unknown_allocation: Fraction
    requests_per_day: Mapping[str, Mapping[str, Fraction]]
    prepayment_weight: Fraction
    busy_hour_factor: Mapping[str, Fraction]
    guaranteed_minimum: Fraction
    minimum: Fraction
    blend: tuple[Fraction, Fraction, Fraction]
    digest: str = ""

    @property
    def distributable_quanta(self) -> int:
        """What can be given away, in thousandths of a unit per second, rounded down."""
        left = self.operating_threshold * (1 - self.priority_share) - self.unknown_allocation
        return int(left * QUANTA_PER_UNIT)

    def minimum_of(self, category: str) -> Fraction:
        """Return the least allocation of a User of this category, units per second."""
        return self.guaranteed_minimum if category == "other" else self.minimum

    def minimum_quanta(self, category: str) -> int:
        """Return the least allocation of a User of this category, in thousandths of a unit per second."""
        return int(self.minimum_of(category) * QUANTA_PER_UNIT)

    def meter_rates(self, category: str) -> dict[str, Fraction]:
        """Return the expected Service Requests a day of one meter or Device by kind, prepayment weighted."""
        return {
            kind: rate * self.prepayment_weight if kind.endswith("_prepayment") else rate
            for kind, rate in self.requests_per_day[category].items()
        }

    def blend_for(self, has_forecast: bool, has_actual: bool) -> tuple[Fraction, Fraction, Fraction]:
        """Return the shares of portfolio, forecast and actual for a User who may lack the latter two.

        What is missing leaves its share to the others in proportion; if nothing is left, to the portfolio.
        """
        portfolio, forecast, actual = self.blend
        forecast = forecast if has_forecast else Fraction(0)
        actual = actual if has_actual else Fraction(0)
        total = portfolio + forecast + actual
        if not total:
            return Fraction(1), Fraction(0), Fraction(0)
        return portfolio / total, forecast / total, actual / total

    @classmethod
    def load(cls, path: str | Path) -> Parameters:
        """Read a parameters file.

        Raises
        ------
        ConfigError
            With every mistake of the file: file, line, column, found and expected.
        """
        return cls.read(read_file(path, LARGEST_FILE), file=str(path))

    @classmethod
    def read(cls, data: bytes, *, file: str = "parameters.toml") -> Parameters:
        """Read the bytes of a parameters file; see `load`."""
        return _Reader(read_toml(data, file), file).parameters(hashlib.sha256(data).hexdigest()[:12])


class _Reader:
    """Takes the values of one file out one by one and remembers every mistake."""

    def __init__(self, toml: Toml, file: str) -> None:
        self.values = toml.values
        self.toml = toml
        self.file = file
        self.mistakes: list[Mistake] = []

    def wrong(self, path: tuple[str | int, ...], message: str) -> None:
        """Note a mistake at the value of a path, or at the table it is missing in."""
        self._note(path, message, self.toml.place_of(*path))

    def _note(self, path: tuple[str | int, ...], message: str, place: tuple[int | None, int | None]) -> None:
        field = ".".join(map(str, path))
        # A value that stands in for several categories is read, and found wrong, for each of them.
        if all((each.field, each.message) != (field, message) for each in self.mistakes):
            self.mistakes.append(
                Mistake(message, file=self.file, line=place[0], column=place[1], field=field)
            )

    def parameters(self, digest: str) -> Parameters:
        self._known((), ("label", "version", *_TABLES))
        for name in _TABLES:
            self._known((name,), _TABLES[name])
        label = self._get(("label",))
        if label != NOTICE:
            found = "nothing" if label is None else shown(label)
            self.wrong(("label",), f"label is {found}, expected {NOTICE!r}")
        found_version = self._version()
        capacity = self._number(("capacity", "system_capacity"), Fraction(0), MAX_THRESHOLD, above=True)
        threshold = self._number(("capacity", "operating_threshold"), Fraction(0), MAX_THRESHOLD, above=True)
        share = self._number(("kept", "priority_share"), Fraction(0), 1, below=True)
        unknown = self._quanta(("kept", "unknown_users"))
        rates = {category: self._rates(category) for category in CATEGORIES}
        weight = self._number(("prepayment", "weight"), Fraction(0), 100)
        factors = {category: self._factor(category) for category in CATEGORIES}
        guaranteed = self._quanta(("minimum", "guaranteed_minimum"))
        minimum = self._quanta(("minimum", "everyone_else"))
        blend = tuple(self._number(("blend", source), Fraction(0), 1) for source in _SOURCES)
        if not self.mistakes:
            self._together(capacity, threshold, share, unknown, blend)
        if self.mistakes:
            at_end = (float("inf"), 0)
            self.mistakes.sort(key=lambda each: (each.line, each.column or 0) if each.line else at_end)
            raise ConfigError(self.mistakes)
        return Parameters(
            version=found_version,
            system_capacity=capacity,
            operating_threshold=threshold,
            priority_share=share,
            unknown_allocation=unknown,
            requests_per_day=MappingProxyType({key: MappingProxyType(each) for key, each in rates.items()}),
            prepayment_weight=weight,
            busy_hour_factor=MappingProxyType(factors),
            guaranteed_minimum=guaranteed,
            minimum=minimum,
            blend=(blend[0], blend[1], blend[2]),
            digest=digest,
        )

    def _together(
        self,
        capacity: Fraction,
        threshold: Fraction,
        share: Fraction,
        unknown: Fraction,
        blend: tuple[Fraction, ...],
    ) -> None:
        """Check what only is wrong together."""
        if threshold > capacity:
            fault = f"operating_threshold {_text(threshold)} is above system_capacity {_text(capacity)}"
            self.wrong(("capacity", "operating_threshold"), fault)
        left = threshold * (1 - share)
        if unknown > left:
            fault = (
                f"unknown_users {_text(unknown)} is more than the {_text(left)} units per second that "
                f"priority_share leaves of operating_threshold {_text(threshold)}"
            )
            self.wrong(("kept", "unknown_users"), fault)
        if sum(blend) != 1:
            fault = f"portfolio, forecast and actual add up to {_text(sum(blend, Fraction(0)))}, expected 1"
            self.wrong(("blend",), fault)

    def _version(self) -> str:
        version = self._get(("version",))
        if not isinstance(version, str) or not version.strip() or len(version) > 100 or hidden_in(version):
            found = "nothing" if version is None else shown(version)
            self.wrong(("version",), f"version is {found}, expected a short text, for example '2026-12'")
            return ""
        return version

    def _rates(self, category: str) -> dict[str, Fraction]:
        """Return requests a day by kind: those of the category's own table, else those for everybody."""
        table = self._get(("requests_per_day", category))
        own = table if isinstance(table, Mapping) else {}
        if table is not None and not isinstance(table, Mapping):
            self.wrong(
                ("requests_per_day", category), f"{category} {shown(table)} must be a table of {_KINDS}"
            )
        self._known(("requests_per_day", category), METER_KINDS)
        return {
            kind: self._number(
                ("requests_per_day", category, kind) if kind in own else ("requests_per_day", kind),
                Fraction(0),
                100_000,
            )
            for kind in METER_KINDS
        }

    def _factor(self, category: str) -> Fraction:
        own = self._get(("busy_hour_factor", category)) is not None
        return self._number(("busy_hour_factor", category if own else "default"), Fraction(1), 24)

    def _get(self, path: tuple[str, ...]) -> Any:
        found: Any = self.values
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def _known(self, path: tuple[str, ...], names: tuple[str, ...]) -> None:
        """Refuse keys that mean nothing: a slip would otherwise be a silent default."""
        table = self._get(path) if path else self.values
        if table is None:
            return  # each missing value tells of itself
        if not isinstance(table, Mapping):
            if len(path) == 1:
                self.wrong(path, f"{path[0]} {shown(table)} must be a table: [{path[0]}]")
            return
        for key in table:
            if key not in names:
                fault = f"{shown(key)} is not known here{did_you_mean(key, names)}"
                self._note((*path, key), fault, self.toml.place_of_key(*path, key))

    def _quanta(self, path: tuple[str, ...]) -> Fraction:
        value = self._number(path, Fraction(0), MAX_THRESHOLD)
        if (value * QUANTA_PER_UNIT).denominator != 1:
            self.wrong(path, f"{path[-1]} {_text(value)} has more than three decimals")
        return value

    def _number(
        self, path: tuple[str, ...], low: Fraction, high: float, *, above: bool = False, below: bool = False
    ) -> Fraction:
        """Return an exact number in its range; what is returned after a mistake is never used."""
        value = self._get(path)
        least, most = "above" if above else "at least", "below" if below else "at most"
        expected = f"expected a number {least} {low}, {most} {high:,.15g}"
        if value is None:
            self.wrong(path, f"{'.'.join(path)} is missing, {expected}")
        elif isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.wrong(path, f"{path[-1]} {shown(value)} is not a number, {expected}")
        elif isinstance(value, Decimal) and not value.is_finite():
            self.wrong(path, f"{path[-1]} {value} is not finite, {expected}")
        elif not low <= value <= high or (above and value == low) or (below and value == high):
            self.wrong(path, f"{path[-1]} {shown(value) if isinstance(value, int) else value}, {expected}")
        elif isinstance(value, Decimal) and _decimals(value) > _MOST_DECIMALS:
            self.wrong(path, f"{path[-1]} has {_decimals(value)} decimals, expected at most {_MOST_DECIMALS}")
        else:
            return Fraction(value)
        return low


_KINDS = ", ".join(METER_KINDS)
_TABLES: Mapping[str, tuple[str, ...]] = {
    "capacity": ("system_capacity", "operating_threshold"),
    "kept": ("priority_share", "unknown_users"),
    "requests_per_day": (*METER_KINDS, *CATEGORIES),
    "prepayment": ("weight",),
    "busy_hour_factor": ("default", *CATEGORIES),
    "minimum": ("guaranteed_minimum", "everyone_else"),
    "blend": _SOURCES,
}


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _text(value: Fraction) -> str:
    return format(float(value), ".15g")
