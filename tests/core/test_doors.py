"""The doors for Cython and for C: an extension built against them decides without the GIL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tmm_core
from tmm_core import Config, Decision, Mechanism


def mechanism() -> Mechanism:
    """Ten units per second with a burst of one second: eleven requests from rest. Active after 25."""
    config = Config(200, 100, allocations={"Northern Energy": 10.0}, priority=["7.4"], sharing="none")
    return Mechanism(config, start=0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["from_cython", "from_c"])
def test_an_extension_decides_as_python_does(doors: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(doors))
    extension = __import__(name)
    through, plain = mechanism(), mechanism()
    user, srv = through.user("Northern Energy"), through.srv("4.1.1")
    lane = through.lane()
    admitted = extension.storm(lane, user, srv, 1_000, 500)
    assert admitted == sum(bool(plain.admit_at(user, srv, 1_000)) for _ in range(500))
    assert 11 < admitted < 500, "some admitted while inactive, the rest throttled"
    assert np.array_equal(through.snapshot().counts, plain.snapshot().counts)


@pytest.mark.timeout(240)
def test_retry_after_through_c_is_the_one_of_python(doors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(doors))
    import from_c  # type: ignore[import-not-found]

    through, plain = mechanism(), mechanism()
    lane, user = through.lane(), through.user("Northern Energy")
    for _ in range(20):
        assert from_c.retry(lane, user, 1_000) == round(plain.retry_after(user, 1_000) * 1e9)


@pytest.mark.timeout(240)
def test_a_lane_from_cython_answers_for_priority(doors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(doors))
    import from_cython  # type: ignore[import-not-found]

    block = mechanism()
    assert from_cython.one(block.lane(), 0, block.srv("7.4")) == Decision.PRIORITY


def test_the_lanes_run_out_with_a_clear_error_and_come_back() -> None:
    block = mechanism()
    lanes = [block.lane() for _ in range(4)]
    with pytest.raises(RuntimeError, match="all 4 lanes of this Mechanism are taken: close one"):
        block.lane()
    lanes[0].close()
    block.lane().close()


def test_get_include_holds_the_header() -> None:
    header = Path(tmm_core.get_include()) / "tmm_core.h"
    assert "TMM_API_VERSION" in header.read_text(encoding="utf-8")
