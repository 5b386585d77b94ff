"""A block shared by processes beside memory of our own: the same calls, in turn, in one run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from measure import MANY, calls, side_by_side

from conftest import config_of, traffic
from tmm_core import Mechanism

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shared block needs Linux or macOS")
N = 20_000
ROUNDS = 40
HALF = 500_000


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Mechanism]:
    """The Mechanism of the other benchmarks, on a block in a mapped file."""
    config = dataclasses.replace(config_of(300), shared=str(tmp_path / "block"))
    with Mechanism.open(config) as made:
        assert made.block is not None
        yield made


def say(took: dict[str, float]) -> tuple[float, str, str]:
    """Return the ratio and how it reads."""
    ratio = took["shared"] / took["private"]
    return (
        ratio,
        f"{took['shared']:.2f} ns",
        f"{ratio:.2f} of the same on private memory, {took['private']:.2f} ns",
    )


def test_quick_shared_scalar_admit(
    mechanism: Mechanism, shared: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """`mechanism.admit(user, srv)` inside the allocation, everything included."""
    sides = {
        name: (calls(each.admit, each.user("User 7"), each.srv("4.1.1"), n=N), N)
        for name, each in (("private", mechanism), ("shared", shared))
    }
    took = side_by_side(sides, rounds=ROUNDS)
    benchmark.pedantic(sides["shared"][0], rounds=5, warmup_rounds=1)
    judge("shared_scalar_admit", "`mechanism.admit(user, srv)` on a shared block", *say(took))


def test_quick_shared_gate_admit(
    mechanism: Mechanism, shared: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """`gate.admit(srv)` inside the allocation, everything included."""
    sides = {
        name: (calls(each.gate("User 7").admit, each.srv("4.1.1"), n=N), N)
        for name, each in (("private", mechanism), ("shared", shared))
    }
    took = side_by_side(sides, rounds=ROUNDS)
    benchmark.pedantic(sides["shared"][0], rounds=5, warmup_rounds=1)
    judge("shared_gate_admit", "`gate.admit(srv)` on a shared block", *say(took))


def test_quick_shared_batch_65536(
    mechanism: Mechanism, shared: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """65,536 requests of 300 Users in one call."""
    users, srvs, out = traffic(mechanism, 65_536, 300)
    sides = {
        "private": (lambda: mechanism.admit_many(users, srvs, out=out), 65_536),
        "shared": (lambda: shared.admit_many(users, srvs, out=out), 65_536),
    }
    took = side_by_side(sides, rounds=MANY)
    assert (out >= 2).all(), "everybody stayed inside the allocation"
    benchmark.pedantic(shared.admit_many, args=(users, srvs), kwargs={"out": out}, rounds=50, warmup_rounds=1)
    judge("shared_batch_65536", "a batch of 65,536 on a shared block", *say(took))


def beside_a_known_user(shared: Mechanism, first: int) -> dict[str, float]:
    """Half a million unknown ids, all different, in rounds of N, and as many look-ups of a known User in turn."""
    user, admit, srv = shared.user, shared.admit, shared.srv("4.1.1")
    # Made beforehand: of an id that is heard for the first time the hash is not known yet.
    names = [f"90-B3-D5-1F-{number:011X}" for number in range(first, first + HALF)]
    rounds = iter([names[begin : begin + N] for begin in range(0, HALF, N)])

    def unknown() -> None:
        for name in next(rounds):
            admit(user(name), srv)

    def known() -> None:
        for _ in range(N):
            admit(user("User 7"), srv)

    return side_by_side({"unknown": (unknown, N), "known": (known, N)}, rounds=HALF // N - 1)


def test_a_million_unknown_users(shared: Mechanism, judge: Callable[..., None], benchmark: Any) -> None:
    """`mechanism.admit(mechanism.user(id), srv)`, a million different ids: as slow at the end as at the beginning."""
    early, late = (beside_a_known_user(shared, first) for first in (0, HALF))
    benchmark.pedantic(lambda: None, rounds=1)
    assert shared.snapshot().counts[0].sum() == 2 * HALF, "nobody knew them"
    ratios = [took["unknown"] / took["known"] for took in (early, late)]
    judge(
        "unknown_users", "a decision for an unknown User, by its id", ratios[1], f"{late['unknown']:.0f} ns",
        f"{ratios[1]:.2f} of the same for a known one, {late['known']:.0f} ns",
    )  # fmt: skip
    judge(
        "unknown_users_growth", "the second half of a million unknown Users", ratios[1] / ratios[0],
        f"{late['unknown']:.0f} ns", f"{ratios[1] / ratios[0]:.2f} times the first, {early['unknown']:.0f} ns",
    )  # fmt: skip
