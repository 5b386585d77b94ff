"""Versions of the priority list: what a change makes of it, what two differ in, and the file of a new one.

The list is managed by the Panel or a Sub-Committee and kept outside the SEC (SECMP0067): a change is a new
version with who approved it, and a version that was ever in force stays as it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

from tmm_core.errors import ConfigError, Mistake
from tmm_core.policy.catalogue import by_srv_code
from tmm_core.policy.config import PriorityList
from tmm_core.policy.service_requests import expand, fault_of, srv_codes, variants_of

__all__ = ["Difference", "added", "differ", "digest_of", "doubts", "removed", "to_toml"]

#: Names of Service Requests that the criteria discussed leave out (SECMP0067: install, commission, decommission).
_LEFT_OUT = re.compile(r"\b(?:install|commission|decommission)", re.IGNORECASE)
_TARGET_S = re.compile(r"([0-9,]+) ?s")
_LONGEST_TARGET_S = 30


@dataclass(frozen=True, slots=True)
class Difference:
    """SRVs that one version of the list has and the other has not, in the order of the catalogue."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def differ(old: PriorityList, new: PriorityList) -> Difference:
    """Return what a new version changes, SRV by SRV: how it is written does not matter. *Thread-safe.*"""
    before, after = old.expanded, new.expanded
    order = srv_codes()
    return Difference(
        tuple(code for code in order if code in after and code not in before),
        tuple(code for code in order if code in before and code not in after),
    )


def added(old: PriorityList, codes: Iterable[str], version: str, approved_by: str, effective_from: date,
          source: str) -> PriorityList:  # fmt: skip
    """Return a new version with SRVs or Service References added.

    Raises
    ------
    ConfigError
        Codes that are not in the catalogue or on the list already, no new version, or nobody who approved it.
    """
    found = _checked(old, version, approved_by)
    new = list(old.srvs)
    for code in codes:
        fault = fault_of(code)
        if fault is None and set(variants_of(code)) <= expand(new):
            fault = f"{code!r} is on the list already"
        if fault is not None:
            found.append(Mistake(fault, field="srvs"))
            continue
        # A Service Reference takes the place of those of its variants that were listed one by one.
        new = [other for other in new if other not in variants_of(code)] + [code]
    return _made(old, new, version, approved_by, effective_from, source, found)


def removed(old: PriorityList, codes: Iterable[str], version: str, approved_by: str, effective_from: date,
            source: str) -> PriorityList:  # fmt: skip
    """Return a new version without some SRVs or Service References; raises as `added` does.

    Where a variant goes that a Service Reference stands for, the reference gives way to the others of its variants.
    """
    found = _checked(old, version, approved_by)
    new = list(old.srvs)
    for code in codes:
        gone = set(variants_of(code))
        fault = fault_of(code)
        if fault is None and not gone & expand(new):
            fault = f"{code!r} is not on the list"
        if fault is not None:
            found.append(Mistake(fault, field="srvs"))
            continue
        kept: list[str] = []
        for other in new:
            stays = [variant for variant in variants_of(other) if variant not in gone]
            kept += [other] if len(stays) == len(variants_of(other)) else stays
        new = kept
    return _made(old, new, version, approved_by, effective_from, source, found)


def _checked(old: PriorityList, version: str, approved_by: str) -> list[Mistake]:
    found = []
    if not version.strip() or version == old.version:
        fault = f"version {version!r} must be a new one: the list is at {old.version!r}"
        found.append(Mistake(fault, field="version"))
    if not approved_by.strip():
        found.append(Mistake("approved_by is empty, expected who approved the change", field="approved_by"))
    return found


def _made(
    old: PriorityList, codes: list[str], version: str, approved_by: str, effective_from: date, source: str,
    found: list[Mistake],
) -> PriorityList:  # fmt: skip
    if old.effective_from is not None and effective_from < old.effective_from:
        fault = (
            f"effective_from {effective_from} is before that of the version it changes, {old.effective_from}"
        )
        found.append(Mistake(fault, field="effective_from"))
    if found:
        raise ConfigError(found)
    places = {code: place for place, code in enumerate(srv_codes())}
    ordered = sorted(codes, key=lambda code: (min(places[each] for each in variants_of(code)), code))
    return replace(
        old, srvs=tuple(ordered), version=version, approved_by=approved_by, effective_from=effective_from,
        source=source or old.source,
    )  # fmt: skip


def doubts(codes: Iterable[str]) -> list[str]:
    """Return why SRVs may not belong on the list, by the criteria discussed (SECMP0067), one sentence each."""
    said = []
    for code in codes:
        request = by_srv_code()[code]
        if _LEFT_OUT.search(request.name):
            said.append(f"{code} ({request.name}): install, commission and decommission were to be left out.")
        target = _TARGET_S.search(request.target_response)
        if target is not None and int(target[1].replace(",", "")) > _LONGEST_TARGET_S:
            said.append(
                f"{code} ({request.name}): its target response time is {request.target_response}, and only those of "
                f"{_LONGEST_TARGET_S} s were to be considered."
            )
    return said


def to_toml(priority: PriorityList, *, old: PriorityList | None = None) -> str:
    """Return the file of a version; the same list gives the same bytes.

    Parameters
    ----------
    priority : PriorityList
    old : PriorityList, optional
        The version it was made from, told in a comment.
    """
    lines = [
        "# Priority Service Request List: SRVs that are never throttled. A version is never edited:",
        "# 'tmm priority-list add' and 'remove' write a new one.",
    ]
    if old is not None:
        change = differ(old, priority)
        parts = [
            f"{sign}{code}" for sign, codes in (("+", change.added), ("-", change.removed)) for code in codes
        ]
        lines.append(f"# Made from version {_text(old.version)}, digest {digest_of(old)}: {' '.join(parts)}")
    lines += ["", f"version        = {_text(priority.version)}"]
    if priority.effective_from is not None:
        lines.append(f"effective_from = {priority.effective_from.isoformat()}")
    lines += [
        f"approved_by    = {_text(priority.approved_by)}",
        f"source         = {_text(priority.source)}",
        "",
    ]
    lines.append("srvs = [")
    for code in priority.srvs:
        names = "; ".join(by_srv_code()[each].name for each in variants_of(code))
        lines.append(f"    {f'{_text(code)},':10} # {names if len(names) <= 90 else names[:87] + '...'}")
    lines += ["]", ""]
    return "\n".join(lines)


def digest_of(priority: PriorityList) -> str:
    """Return twelve hexadecimal digits that name a version: SHA-256 over all it says, however it is laid out."""
    content = {
        "version": priority.version,
        "effective_from": priority.effective_from.isoformat() if priority.effective_from else None,
        "approved_by": priority.approved_by,
        "source": priority.source,
        "srvs": sorted(priority.expanded),
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]


def _text(text: str) -> str:
    """Return a basic string of TOML; `PriorityList` allows no control character."""
    return json.dumps(text, ensure_ascii=False)
