"""The catalogue of Service Requests: what is known of each of the 129 Service Reference Variants (SRVs).

Data: ``service_requests.csv`` beside this file, from the DUIS XML schema V5.4 and DCC's published request
matrix. A target response time is published for four SRVs only; the others are empty, not zero.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from tmm_core.policy.service_requests import FILE

__all__ = ["ServiceRequest", "by_srv_code", "catalogue"]


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
    with open(FILE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
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
        for row in rows
    )


@cache
def by_srv_code() -> Mapping[str, ServiceRequest]:
    """Return the catalogue by SRV code, read-only. *Thread-safe.*"""
    return MappingProxyType({request.srv_code: request for request in catalogue()})
