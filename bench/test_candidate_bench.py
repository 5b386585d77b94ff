"""A candidate allocation beside the real one: the same calls without and with it, in turn, in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from measure import MANY, calls, side_by_side

from conftest import config_of, traffic
from tmm_core import Mechanism

N = 20_000
ROUNDS = 40


@pytest.fixture
def tried() -> Iterator[Mechanism]:
    """The Mechanism of the other benchmarks, trying an allocation of twice as much."""
    config = config_of(300)
    twice = {user: 2 * rate for user, rate in config.allocations.items()}
    with Mechanism(dataclasses.replace(config, candidate_allocations=twice)) as made:
        assert made.snapshot().candidate is not None
        yield made


def say(took: dict[str, float]) -> tuple[float, str, str]:
    """Return the ratio and how it reads."""
    ratio = took["with"] / took["without"]
    return ratio, f"{took['with']:.2f} ns", f"{ratio:.2f} of the same without one, {took['without']:.2f} ns"


def test_quick_candidate_scalar(
    mechanism: Mechanism, tried: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """`mechanism.admit(user, srv)` inside both allocations: one more bucket is asked."""
    sides = {
        name: (calls(each.admit, each.user("User 7"), each.srv("4.1.1"), n=N), N)
        for name, each in (("without", mechanism), ("with", tried))
    }
    took = side_by_side(sides, rounds=ROUNDS)
    benchmark.pedantic(sides["with"][0], rounds=5, warmup_rounds=1)
    judge("candidate_scalar", "`mechanism.admit(user, srv)` with a candidate allocation", *say(took))


def test_quick_candidate_batch(
    mechanism: Mechanism, tried: Mechanism, judge: Callable[..., None], benchmark: Any
) -> None:
    """65,536 requests of 300 Users in one call: one more bucket is asked for each User, not for each request."""
    users, srvs, out = traffic(mechanism, 65_536, 300)
    sides = {
        name: ((lambda each=each: each.admit_many(users, srvs, out=out)), 65_536)
        for name, each in (("without", mechanism), ("with", tried))
    }
    took = side_by_side(sides, rounds=MANY)
    benchmark.pedantic(sides["with"][0], rounds=5, warmup_rounds=1)
    judge("candidate_batch", "a batch of 65,536 with a candidate allocation", *say(took))
