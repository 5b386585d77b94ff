"""Read the header of a DUIS message of 2, 5 and 40 kB, beside lxml's iterparse and defusedxml.

The time is that of one call on a whole message in memory. All readers find the same User and SRV; ours and iterparse
stop after the header.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from measure import calls, side_by_side

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gateway.messages import NAMESPACE, USER, compose

from tmm_core.gateway import duis

EXPECTED = (USER, "4.1.1")


def names(header: duis.Header) -> tuple[str, str]:
    return header.user_id, header.srv_code


def by_names(message: bytes) -> tuple[str, str]:
    """What the middleware does on all but the first message of a kind."""
    return duis.known_names(message) or names(duis.read_header(message))


def by_read_header(message: bytes) -> tuple[str, str]:
    return names(duis.read_header(message))


def by_expat(message: bytes) -> tuple[str, str]:
    """The way of the first message of a kind: nothing is known of it."""
    duis.kinds.clear()
    return names(duis.read_header(message))


def by_lxml_iterparse(message: bytes) -> tuple[str, str]:
    from lxml import etree

    found: dict[str, str] = {}
    options = {"resolve_entities": False, "no_network": True, "events": ("end",)}
    for _, element in etree.iterparse(io.BytesIO(message), **options):
        if element.tag == f"{{{NAMESPACE}}}Header":
            break
        found[element.tag.rpartition("}")[2]] = element.text or ""
    return found["RequestID"][:23], found["ServiceReferenceVariant"]


def by_defusedxml(message: bytes) -> tuple[str, str]:
    from defusedxml.ElementTree import fromstring

    header = fromstring(message.decode(), forbid_dtd=True)[0]
    found = {element.tag.rpartition("}")[2]: element.text for element in header}
    return found["RequestID"][:23], found["ServiceReferenceVariant"]


def beside_parsers(judge: Callable[..., None], benchmark: Any, kb: int) -> None:
    """Measure our ways and the parsers on one message, and judge two of ours by iterparse."""
    pytest.importorskip("lxml", reason="not installed: lxml")
    pytest.importorskip("defusedxml", reason="not installed: defusedxml")
    message = compose(size=1_000 * kb)
    runs = max(1, 20 // kb)  # some milliseconds a round: a longer one is always disturbed on a busy machine
    readers = {
        "names": (by_names, 1_000),
        "expat": (by_expat, 10),
        "iterparse": (by_lxml_iterparse, runs),
        "defusedxml": (by_defusedxml, runs),
    }
    for read, _ in readers.values():
        assert read(message) == EXPECTED
    by_read_header(message)  # expat has just forgotten what was known
    sides = {name: (calls(read, message, n=n), n) for name, (read, n) in readers.items()}
    # by_expat forgets the kind of the message: what needs it is measured by itself.
    took = side_by_side({"names": sides["names"]}, rounds=40)
    parsers = ("expat", "iterparse", "defusedxml")
    took |= side_by_side({name: sides[name] for name in parsers}, rounds=100, collect=True)
    benchmark.pedantic(by_read_header, (message,), rounds=20, warmup_rounds=1)
    us = {name: ns / 1_000 for name, ns in took.items()}
    what = f"DUIS message of {kb} kB"
    for way, of in (("names", f"User and SRV of a {what}, of a known kind"),
                    ("expat", f"the header of a {what}, of a new kind, by expat")):  # fmt: skip
        peers = [
            f"{peer} {us[peer] / us[way]:.1f} times ({us[peer]:.0f} us)"
            for peer in ("iterparse", "defusedxml")
        ]
        times = us["iterparse"] / us[way]
        judge(f"duis_{way}_{kb}_kb", of, times, f"{us[way]:.1f} us", f"lxml {' and '.join(peers)} as long")


def test_duis_header_of_2_kb_quick(judge: Callable[..., None], benchmark: Any) -> None:
    beside_parsers(judge, benchmark, 2)


def test_duis_header_of_5_kb(judge: Callable[..., None], benchmark: Any) -> None:
    beside_parsers(judge, benchmark, 5)


def test_duis_header_of_40_kb(judge: Callable[..., None], benchmark: Any) -> None:
    beside_parsers(judge, benchmark, 40)
