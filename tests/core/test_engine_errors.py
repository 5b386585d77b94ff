"""What the engine says to wrong arrays, wrong slots and a wrong block; and that nothing has been decided then."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from block import Block

from tmm_core import Config, Decision, Mechanism
from tmm_core._core import engine as native
from tmm_core.memory import private_block

CONFIG = Config(200, 100, allocations={"Northern Energy": 10.0})


def uint32(*values: int) -> Any:
    return np.array(values, dtype=np.uint32)


def uint16(*values: int) -> Any:
    return np.array(values, dtype=np.uint16)


WRONG: list[tuple[Any, Any, Any, type[Exception], str]] = [
    ([0], uint16(0), None, TypeError, "users must be an ndarray of uint32, found list"),
    (uint32(0), [0], None, TypeError, "srvs must be an ndarray of uint16, found list"),
    (uint32(0), uint16(0), [0], TypeError, "out must be an ndarray of uint8, found list"),
    (uint16(0), uint16(0), None, TypeError, "users must be of dtype uint32, found uint16"),
    (uint32(0), uint32(0), None, TypeError, "srvs must be of dtype uint16, found uint32"),
    (uint32(0).astype(">u4"), uint16(0), None, TypeError, "users must be of dtype uint32, found >u4"),
    (uint32(0, 1), uint16(0), None, ValueError, "of one length, found 2, 1 and 2"),
    (
        uint32(0, 1).reshape(1, 2),
        uint16(0),
        np.zeros(1, np.uint8),
        ValueError,
        "users must have one dimension, found 2",
    ),
    (uint32(0, 1, 0, 1)[::2], uint16(0, 0), None, ValueError, "users must be contiguous and aligned"),
    (uint32(9), uint16(0), None, IndexError, r"users\[0\]: slot 9 does not exist, expected 0 to 1"),
    (uint32(0, 2), uint16(0, 0), None, IndexError, r"users\[1\]: slot 2 does not exist"),
    (
        uint32(0, 0),
        uint16(0, 900),
        None,
        IndexError,
        r"srvs\[1\]: number 900 does not exist, expected 0 to 129",
    ),
]


@pytest.mark.parametrize(("users", "srvs", "out", "error", "words"), WRONG, ids=[case[4] for case in WRONG])
def test_a_wrong_batch_is_refused_and_nothing_is_decided(
    users: Any, srvs: Any, out: Any, error: type[Exception], words: str
) -> None:
    block = Block(CONFIG)
    before = block.memory.copy()
    with pytest.raises(error, match=words):
        block.engine.admit_many(users, srvs, out, 0)
    assert np.array_equal(block.memory, before)


def test_out_must_be_writable_and_apart_from_what_is_read() -> None:
    block = Block(CONFIG)
    users, srvs = uint32(0, 1), uint16(0, 0)
    fixed = np.zeros(2, dtype=np.uint8)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writable"):
        block.engine.admit_many(users, srvs, fixed)
    for array in (users, srvs):
        with pytest.raises(ValueError, match="out must not overlap users or srvs"):
            block.engine.admit_many(users, srvs, array.view(np.uint8)[:2])


def test_arrays_that_are_only_read_may_be_read_only_and_empty() -> None:
    block = Block(CONFIG)
    users, srvs = uint32(0, 1), uint16(0, 0)
    users.flags.writeable = srvs.flags.writeable = False
    assert block.engine.admit_many(users, srvs, now=0).tolist() == [1, 2]
    assert block.engine.admit_many(users[:0], srvs[:0], now=0).size == 0


def test_every_scalar_call_checks_its_slots() -> None:
    mechanism = Mechanism(CONFIG, start=0)
    for call in (
        lambda: mechanism.admit(2, 0),
        lambda: mechanism.admit_at(2, 0, 0),
        lambda: mechanism.retry_after(2),
        lambda: mechanism.engine.peek(2, 0, 0),
    ):
        with pytest.raises(
            IndexError, match=r"users: slot 2 does not exist, expected 0 to 1 \(see Mechanism.user\)"
        ):
            call()
    with pytest.raises(IndexError, match="slot 2 does not exist"):
        mechanism.engine.words(2)
    with pytest.raises(
        IndexError, match=r"srvs: number 130 does not exist, expected 0 to 129 \(see Mechanism.srv\)"
    ):
        mechanism.admit_at(0, 130, 0)
    with pytest.raises(IndexError, match="srvs: number 130"):
        mechanism.gate("Northern Energy").admit(130)
    for negative in (-1, 2**32):
        with pytest.raises(OverflowError):
            mechanism.admit_at(negative, 0, 0)
    assert not mechanism.engine.counts().any()


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        (1.0, TypeError, "must be an int .*, found float"),
        ("1", TypeError, "must be an int .*, found str"),
        (None, TypeError, "must be an int .*, found NoneType"),
        (-1, OverflowError, "must be from 0 to 4294967294 .*, found a negative number"),
        (1 << 32, OverflowError, "must be from 0 to 4294967294 .*, found a larger number"),
        (1 << 100, OverflowError, "found a larger number"),
        ((1 << 32) - 1, OverflowError, "found a larger number"),
        ((1 << 30) + 1, IndexError, "1073741825 does not exist"),
    ],
)
def test_a_slot_that_can_be_none_is_told_as_such(wrong: Any, error: type[Exception], told: str) -> None:
    """A float was cut short in silence: 1.9 was slot 1."""
    mechanism = Mechanism(CONFIG, start=0)
    gate = mechanism.gate("Northern Energy")
    calls: dict[str, Callable[[], object]] = {
        r"user.*": lambda: mechanism.admit(wrong, 0),
        r"user.* ": lambda: mechanism.admit_at(wrong, 0, 0),
        r"user.*  ": lambda: mechanism.retry_after(wrong),
        r"srv.*": lambda: mechanism.admit(0, wrong),
        r"srv.* ": lambda: mechanism.admit_at(0, wrong, 0),
        r"srv.*  ": lambda: gate.admit(wrong),
        r"srv.*   ": lambda: gate.admit_at(wrong, 0),
        r"user.*   ": lambda: mechanism.engine.peek(wrong, 0, 0),
        r"srv.*    ": lambda: mechanism.engine.peek(0, wrong, 0),
        r"user.*    ": lambda: mechanism.engine.admit_recorded(wrong, 0, 0),
        r"user.*     ": lambda: mechanism.engine.words(wrong),
    }
    for what, call in calls.items():
        with pytest.raises(error, match=f"^{what.strip()}{told}"):
            call()
    assert not mechanism.engine.counts().any()


@pytest.mark.parametrize("wrong", [time.monotonic(), np.float64(1e9), Fraction(5), "now"])
def test_a_time_that_is_no_whole_number_is_told_as_such(wrong: Any) -> None:
    """Seconds were cut short to a few thousand nanoseconds: the same instant for hours."""
    mechanism = Mechanism(CONFIG, start=0)
    gate, one = mechanism.gate("Northern Energy"), (uint32(1), uint16(1))
    calls: list[Callable[[], object]] = [
        lambda: mechanism.admit_at(1, 1, wrong),
        lambda: gate.admit_at(1, wrong),
        lambda: mechanism.admit_many(*one, now=wrong),
        lambda: mechanism.retry_after(1, wrong),
        lambda: gate.retry_after(wrong),
        lambda: mechanism.tick(wrong),
        lambda: mechanism.snapshot(wrong),
        lambda: mechanism.explain("Northern Energy", "4.1.1", now=wrong),
        lambda: mechanism.apply(CONFIG, now=wrong),
        lambda: mechanism.engine.admit_recorded(1, 1, wrong),
        lambda: Mechanism(CONFIG, start=wrong),
    ]
    for call in calls:
        with pytest.raises(
            TypeError, match=r"^now must be an int, nanoseconds as from time.monotonic_ns\(\), found"
        ):
            call()
    assert not mechanism.engine.counts().any()
    assert mechanism.engine.generation == 1
    assert mechanism.admit_at(1, 1, np.int64(5))


def test_a_slot_may_be_any_whole_number() -> None:
    mechanism = Mechanism(CONFIG, start=0)
    for one in (1, True, np.uint32(1), np.int64(1), Decision.SPARE_CAPACITY):
        mechanism.admit_at(one, one, 0)
    assert mechanism.engine.counts()[1, 1].sum() == 5


def test_a_closed_mechanism_says_so_in_every_call() -> None:
    mechanism = Mechanism(CONFIG, start=0)
    gate = mechanism.gate("Northern Energy")
    mechanism.close()
    for call in (
        lambda: mechanism.admit(0, 0),
        lambda: mechanism.admit_at(0, 0, 0),
        lambda: mechanism.retry_after(0),
        lambda: mechanism.admit_many(uint32(0), uint16(0)),
        lambda: gate.admit(0),
        lambda: gate.admit_at(0, 0),
        lambda: gate.retry_after(),
    ):
        with pytest.raises(ValueError, match="the Mechanism is closed"):
            call()


def test_a_block_that_does_not_fit_is_refused() -> None:
    size = native.block_nbytes(2, 3, 1)
    ready = tuple(Decision)
    good = private_block(size)
    with pytest.raises(ValueError, match="bytes aligned to 64; found"):
        native.Engine(good[:-64], 2, 3, 1, ready, 0, 1, 0)
    with pytest.raises(ValueError, match="writable, contiguous array of bytes"):
        native.Engine(good.view(np.int64), 2, 3, 1, ready, 0, 1, 0)
    with pytest.raises(ValueError, match="no block has 0 Users"):
        native.Engine(good, 0, 3, 1, ready, 0, 1, 0)
    with pytest.raises(ValueError, match="expected 4 outcomes, found 1"):
        native.Engine(good, 2, 3, 1, ready[:1], 0, 1, 0)
    native.Engine(good, 2, 3, 1, ready, 0, 1, 0)
    with pytest.raises(ValueError, match="2 Users, 3 SRVs and 1 slabs; expected layout"):
        native.Engine(good, 1, 3, 1, ready, 0, 1, 0)


def test_terms_of_the_wrong_shape_are_refused() -> None:
    block = Block(CONFIG)
    from tmm_core.mechanism import terms_of

    settings, rules, services = terms_of(CONFIG, block.names, block.srvs)
    with pytest.raises(
        ValueError, match=r"2 to 2 Users with 5 terms each expected, found the shape \(1, 5\)"
    ):
        block.engine.apply(settings, rules[:1], services, 0)
    with pytest.raises(ValueError, match="130 SRVs expected, found the shape"):
        block.engine.apply(settings, rules, services[1:], 0)
    with pytest.raises(KeyError, match="brake"):
        block.engine.apply(
            {key: value for key, value in settings.items() if key != "brake"}, rules, services, 0
        )
    assert block.engine.generation == 1


def test_looking_writes_nothing() -> None:
    """Counts stay in the slab they were made in: whoever adds them up meanwhile moves none."""
    block = Block(CONFIG)
    lane_batch = np.ones(100, dtype=np.uint32), np.zeros(100, dtype=np.uint16)
    block.engine.admit_many(*lane_batch, now=0)  # in a slab of its own
    block.engine.admit_at(1, 0, 0)
    before = block.memory.copy()
    for _ in range(2):
        assert block.engine.counts().sum() == block.engine.units().sum() == 101
        block.engine.state(0), block.engine.excess(), block.engine.peek(1, 0, 0), block.engine.words(1)
    assert np.array_equal(block.memory, before)
