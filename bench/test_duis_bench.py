"""Read the header of a DUIS message of 2, 5 and 40 kB, beside lxml's iterparse and defusedxml.

The time is that of one call on a whole message in memory. All readers find the same User and SRV; only the first
two and iterparse stop after the header.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gateway.messages import NAMESPACE, USER, compose

from tmm_core.gateway import duis

SIZES = {"2 kB": 2_000, "5 kB": 5_000, "40 kB": 40_000}
EXPECTED = (USER, "4.1.1")


def run(benchmark: Any, size: str, read: Callable[[bytes], tuple[str, str]]) -> None:
    message = compose(size=SIZES[size])
    assert read(message) == EXPECTED
    benchmark.group = f"DUIS header, {size}"
    assert benchmark(read, message) == EXPECTED


def names(header: duis.Header) -> tuple[str, str]:
    return header.user_id, header.srv_code


def by_names(message: bytes) -> tuple[str, str]:
    """What the middleware does on all but the first message of a kind."""
    return duis.known_names(message) or names(duis.read_header(message))


def by_read_header(message: bytes) -> tuple[str, str]:
    return names(duis.read_header(message))


def by_expat(message: bytes) -> tuple[str, str]:
    """The way of the first message of a kind: nothing is known of it."""
    duis.starts.clear()
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


def test_known_names_2_kb_quick(benchmark: Any) -> None:
    run(benchmark, "2 kB", by_names)


def test_known_names_5_kb(benchmark: Any) -> None:
    run(benchmark, "5 kB", by_names)


def test_known_names_40_kb(benchmark: Any) -> None:
    run(benchmark, "40 kB", by_names)


def test_read_header_2_kb_quick(benchmark: Any) -> None:
    run(benchmark, "2 kB", by_read_header)


def test_read_header_5_kb(benchmark: Any) -> None:
    run(benchmark, "5 kB", by_read_header)


def test_read_header_40_kb(benchmark: Any) -> None:
    run(benchmark, "40 kB", by_read_header)


def test_expat_2_kb_quick(benchmark: Any) -> None:
    run(benchmark, "2 kB", by_expat)


def test_expat_5_kb(benchmark: Any) -> None:
    run(benchmark, "5 kB", by_expat)


def test_expat_40_kb(benchmark: Any) -> None:
    run(benchmark, "40 kB", by_expat)


def test_lxml_iterparse_2_kb(benchmark: Any) -> None:
    pytest.importorskip("lxml", reason="not installed: lxml")
    run(benchmark, "2 kB", by_lxml_iterparse)


def test_lxml_iterparse_5_kb(benchmark: Any) -> None:
    pytest.importorskip("lxml", reason="not installed: lxml")
    run(benchmark, "5 kB", by_lxml_iterparse)


def test_lxml_iterparse_40_kb(benchmark: Any) -> None:
    pytest.importorskip("lxml", reason="not installed: lxml")
    run(benchmark, "40 kB", by_lxml_iterparse)


def test_defusedxml_2_kb(benchmark: Any) -> None:
    pytest.importorskip("defusedxml", reason="not installed: defusedxml")
    run(benchmark, "2 kB", by_defusedxml)


def test_defusedxml_5_kb(benchmark: Any) -> None:
    pytest.importorskip("defusedxml", reason="not installed: defusedxml")
    run(benchmark, "5 kB", by_defusedxml)


def test_defusedxml_40_kb(benchmark: Any) -> None:
    pytest.importorskip("defusedxml", reason="not installed: defusedxml")
    run(benchmark, "40 kB", by_defusedxml)
