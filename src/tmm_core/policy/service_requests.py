"""The codes of Service Requests: the 129 Service Reference Variants (SRVs), and the Service References they are of.

That is all a decision needs of ``service_requests.csv``; `tmm_core.policy.catalogue` has the rest, for people.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from tmm_core.errors import ConfigError, Mistake

__all__ = ["FILE", "expand", "fault_of", "is_srv", "srv_codes", "variants_of"]

FILE = os.path.join(os.path.dirname(__file__), "service_requests.csv")
"""The catalogue; the first two columns are SRV and Service Reference, and neither is ever quoted."""


@cache
def _references() -> Mapping[str, str]:
    """The Service Reference of each SRV, in the order of the catalogue."""
    with open(FILE, encoding="utf-8") as file:
        rows = [line.split(",", 2) for line in file][1:]
    return MappingProxyType({srv: reference for srv, reference, _ in rows})


@cache
def srv_codes() -> tuple[str, ...]:
    """Return the SRV codes, in the order of the catalogue. *Thread-safe.*"""
    return tuple(_references())


@cache
def _variants() -> Mapping[str, tuple[str, ...]]:
    """What each code one may write stands for: an SRV for itself, a Service Reference for its variants."""
    found: dict[str, tuple[str, ...]] = {code: (code,) for code in srv_codes()}
    references: dict[str, list[str]] = {}
    for srv, reference in _references().items():
        references.setdefault(reference, []).append(srv)
    # A reference without variants is its own SRV ("7.4"), so the second never contradicts the first.
    found.update({reference: tuple(codes) for reference, codes in references.items()})
    return MappingProxyType(found)


def variants_of(code: str) -> tuple[str, ...]:
    """Return the SRV codes that `code`, an SRV or a Service Reference, stands for; empty if unknown.

    *Thread-safe.*

    Examples
    --------
    >>> variants_of("7.4"), variants_of("4.8"), variants_of("4.8.2"), variants_of("4.9")
    (('7.4',), ('4.8.1', '4.8.2', '4.8.3'), ('4.8.2',), ())
    """
    return _variants().get(code, ())


def is_srv(code: str) -> bool:
    """Tell whether `code` is an SRV of the catalogue, not only a Service Reference.

    *Thread-safe.*
    """
    return code in _references()


def fault_of(code: object, *, hint: bool = True) -> str | None:
    """Say what is wrong with `code` as an SRV or a Service Reference; None if nothing is.

    *Thread-safe.* Without `hint` it suggests none that is spelt alike: to look for one takes a millisecond.

    Examples
    --------
    >>> fault_of("7.4")
    >>> fault_of("4.8.4")
    "'4.8.4' is not an SRV or a Service Reference of the catalogue (did you mean '4.8.1', '4.8.2', '4.8.3'?)"
    """
    if not isinstance(code, str):
        return f"{code!r} must be text, for example '4.1.1'"
    if variants_of(code):
        return None
    shown = code if len(code) <= 40 else code[:40] + "..."
    # The other variants of the same reference first: "4.4.1" was more likely meant to be 4.4.2 than 4.6.1.
    near: list[str] = list(variants_of(code.strip().rpartition(".")[0]))
    if (
        not near and hint and len(code) <= 20
    ):  # difflib is quadratic: a long code nobody meant gets no suggestion
        import difflib  # only for who has mistyped: a worker's start does not pay for it

        near = sorted(difflib.get_close_matches(code, _variants(), n=3, cutoff=0.75))
    meant = " (did you mean " + ", ".join(repr(other) for other in near[:4]) + "?)" if near else ""
    return f"{shown!r} is not an SRV or a Service Reference of the catalogue{meant}"


def expand(codes: Iterable[str]) -> frozenset[str]:
    """Return the SRV codes that `codes` stand for.

    Parameters
    ----------
    codes : iterable of str
        SRVs (``"4.1.1"``) and Service References (``"4.4"``: all its variants).

    Raises
    ------
    ConfigError
        Codes that are not in the catalogue, all of them at once.

    Notes
    -----
    *Thread-safe.*

    Examples
    --------
    >>> sorted(expand(["2.2", "4.8"]))
    ['2.2', '4.8.1', '4.8.2', '4.8.3']
    """
    given = tuple(codes)
    mistakes = [Mistake(fault, field="srvs") for code in given if (fault := fault_of(code)) is not None]
    if mistakes:
        raise ConfigError(mistakes)
    return frozenset(srv_code for code in given for srv_code in variants_of(code))
