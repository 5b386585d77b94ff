"""The catalogue of Service Requests: the 129 Service Reference Variants (SRVs) a Service User can send.

Data: ``service_requests.csv`` beside this file, from the DUIS XML schema V5.4 and DCC's published request
matrix. A target response time is published for four SRVs only; the others are empty, not zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from tmm_core.errors import ConfigError, Mistake

__all__ = [
    "ServiceRequest",
    "by_srv_code",
    "catalogue",
    "expand",
    "fault_of",
    "matches",
    "srv_codes",
    "variants_of",
]


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """One SRV of the catalogue.

    Attributes
    ----------
    srv_code : str
        Service Reference Variant, for example ``"4.1.1"``.
    service_reference : str
        The Service Reference it belongs to, for example ``"4.1"``.
    name : str
    user_roles : tuple of str
        User Roles that may send it: IS, ES, GS, RSA, ED, GT, OU, MDR.
    critical : bool
        Sent twice: to be transformed (Command Variant 4), then signed (5, 6 or 7).
    non_device : bool
        Answered by the DCC itself, no Device involved (Command Variant 8).
    command_variants : tuple of int
    target_response : str
        As published, with its unit; empty where it is not established.
    """

    srv_code: str
    service_reference: str
    name: str
    user_roles: tuple[str, ...]
    critical: bool
    non_device: bool
    command_variants: tuple[int, ...]
    target_response: str


@cache
def catalogue() -> tuple[ServiceRequest, ...]:
    """Return all Service Requests, in the order of the file.

    *Thread-safe.*

    Examples
    --------
    >>> len(catalogue())
    129
    """
    import csv
    import io

    with open(os.path.join(os.path.dirname(__file__), "service_requests.csv"), encoding="utf-8") as file:
        text = file.read()
    return tuple(
        ServiceRequest(
            srv_code=row["srv"],
            service_reference=row["service_reference"],
            name=row["name"],
            user_roles=tuple(row["user_roles"].split()),
            critical=row["critical"] == "yes",
            non_device=row["non_device"] == "yes",
            command_variants=tuple(int(variant) for variant in row["command_variants"].split()),
            target_response=row["target_response"],
        )
        for row in csv.DictReader(io.StringIO(text, newline=""))
    )


@cache
def srv_codes() -> tuple[str, ...]:
    """Return the SRV codes, in the order of the catalogue. *Thread-safe.*"""
    return tuple(request.srv_code for request in catalogue())


@cache
def by_srv_code() -> Mapping[str, ServiceRequest]:
    """Return the catalogue by SRV code, read-only. *Thread-safe.*"""
    return MappingProxyType({request.srv_code: request for request in catalogue()})


@cache
def _variants() -> Mapping[str, tuple[str, ...]]:
    """What each code one may write stands for: an SRV for itself, a Service Reference for its variants."""
    found: dict[str, tuple[str, ...]] = {code: (code,) for code in srv_codes()}
    references: dict[str, list[str]] = {}
    for request in catalogue():
        references.setdefault(request.service_reference, []).append(request.srv_code)
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


def matches(code: str, srv_code: str) -> bool:
    """Tell whether `code`, an SRV or a Service Reference, stands for `srv_code` among others.

    *Thread-safe.*

    Examples
    --------
    >>> matches("4.4", "4.4.5"), matches("4.4.4", "4.4.5"), matches("4.1", "4.11.1")
    (True, False, False)
    """
    return srv_code in variants_of(code)


def fault_of(code: object) -> str | None:
    """Say what is wrong with `code` as an SRV or a Service Reference; None if nothing is.

    *Thread-safe.*

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
    if not near and len(code) <= 20:  # difflib is quadratic: a long code nobody meant gets no suggestion
        import difflib  # only for who has mistyped: a worker's start does not pay for it

        near = sorted(difflib.get_close_matches(code, _variants(), n=3, cutoff=0.75))
    hint = " (did you mean " + ", ".join(repr(other) for other in near[:4]) + "?)" if near else ""
    return f"{shown!r} is not an SRV or a Service Reference of the catalogue{hint}"


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
