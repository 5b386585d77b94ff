"""Replace the Users of a record by pseudonyms, before any figure is computed: no name is left to leak.

The order of the pseudonyms comes from a digest over the counts themselves, which only who has the logs can
compute, and who has the logs has the names. It is the same whenever the report is made from the same logs, and
no key is written anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tmm_core.mechanism import UNKNOWN
from tmm_core.operations.report.changes import allocations_in
from tmm_core.operations.report.record import Applied, Record
from tmm_core.policy.portfolio import Portfolio

__all__ = ["anonymised"]


def anonymised(record: Record, portfolio: Portfolio | None = None) -> tuple[Record, Portfolio | None]:
    """Return the record, and the portfolio, with pseudonyms such as ``User 07`` for the names of Users.

    Identifiers of Users, files they were configured in and free text of faults and losses are left out.
    """
    names = set(record.users) - {UNKNOWN}
    for each in record.configurations:
        names |= set(allocations_in(each.description))
        names |= set(_candidate_rates(each.description))
    names |= {user.user for activation in record.activations for user in activation.users}
    pseudonym = _pseudonyms(record, names)
    renamed = [pseudonym.get(name, name) for name in record.users]
    order = np.array(sorted(range(len(renamed)), key=renamed.__getitem__), dtype=np.intp)

    def of(name: str | None) -> str | None:
        return None if name is None else pseudonym.get(name, name)

    hidden = replace(
        record,
        users=tuple(renamed[place] for place in order),
        user_days=record.user_days[order],
        user_day_units=record.user_day_units[order],
        user_srvs=record.user_srvs[order],
        user_busiest=record.user_busiest[order],
        user_seconds=record.user_seconds[order],
        activations=tuple(
            replace(
                each,
                users=tuple(
                    sorted(
                        (replace(user, user=pseudonym.get(user.user, user.user)) for user in each.users),
                        key=lambda user: user.user,
                    )
                ),
            )
            for each in record.activations
        ),
        configurations=tuple(_hidden(each, pseudonym) for each in record.configurations),
        faults=tuple(replace(each, user=of(each.user), detail="") for each in record.faults),
        losses=tuple(replace(each, reason="") for each in record.losses),
        excesses=tuple(replace(each, user=of(each.user)) for each in record.excesses),
        notices=tuple(replace(each, user=pseudonym.get(each.user, each.user)) for each in record.notices),
        tried=tuple(replace(each, user=pseudonym.get(each.user, each.user)) for each in record.tried),
    )
    if portfolio is None:
        return hidden, None
    users = tuple(
        replace(each, user=pseudonym[each.user], user_ids=())
        for each in portfolio.users
        if each.user in pseudonym
    )
    return hidden, Portfolio(portfolio.month, users) if users else None


def _pseudonyms(record: Record, names: set[str]) -> dict[str, str]:
    key = hashlib.sha256()
    for array in (record.user_days, record.user_srvs, record.minute_units, record.user_busiest):
        key.update(np.ascontiguousarray(array, "<i8").tobytes())
    order = sorted(
        names, key=lambda name: hashlib.blake2b(name.encode("utf-8", "replace"), key=key.digest()).digest()
    )
    width = len(str(len(order)))
    return {name: f"User {number:0{width}d}" for number, name in enumerate(order, 1)}


def _hidden(each: Applied, pseudonym: Mapping[str, str]) -> Applied:
    description: dict[str, Any] = {
        name: value for name, value in each.description.items() if name not in ("allocations_file", "source")
    }
    # In the order of the pseudonyms: the file's own order could be known.
    description["allocations"] = sorted(
        (
            {"user": pseudonym[row["user"]], "category": row.get("category"), "allocation": row["allocation"]}
            for row in each.description.get("allocations", ())
        ),
        key=lambda row: row["user"],
    )
    if description.get("candidate"):
        rates = {pseudonym[name]: rate for name, rate in _candidate_rates(description).items()}
        description["candidate"] = {**description["candidate"], "allocations": dict(sorted(rates.items()))}
    return replace(each, description=description)


def _candidate_rates(description: Mapping[str, Any]) -> Mapping[str, float]:
    rates: Mapping[str, float] = (description.get("candidate") or {}).get("allocations") or {}
    return rates
