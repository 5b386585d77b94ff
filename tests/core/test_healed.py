"""Impossible words are counted where they mean something: own buckets yes, spare buckets, whose terms move, no."""

from __future__ import annotations

import numpy as np
import pytest
from core.block import Block, column

from tmm_core import Config, Decision

SECOND = 10**9
#: The level is (L - 1) * 65536, of a weight of 100 units per second.
LOW, HIGH = 100, 65536  # a unit in 6.5 seconds; 100 units per second
TERMS = Config(
    2000, 1000, allocations={"Avon Power": 100.0, "Tees Gas": 0.0}, spare_weight=100.0, hold_s=3600
)


def active(now: int) -> Block:
    block = Block(TERMS, now=now)
    block.set("state", 3)
    return block


def ask(block: Block, user: int, now: int, batch: int) -> list[int]:
    """One decision, or a batch; no tick is due, so that the level is ours to move."""
    block.set("tick_at", now)
    if not batch:
        return [int(block.engine.admit_at(user, 0, now))]
    users = np.full(batch, user, dtype=np.uint32)
    return block.engine.admit_many(users, np.zeros(batch, dtype=np.uint16), now=now).tolist()


@pytest.mark.parametrize("batch", [0, 300], ids=["one-by-one", "batch"])
def test_a_level_that_moves_makes_no_word_impossible(batch: int) -> None:
    now = 1000 * SECOND
    block = active(now)
    admitted, beyond = 0, 0
    for step in range(
        40
    ):  # 10 s of overload: the share of a User with no allocation is 0.15, then 100 units a second
        block.set("level", HIGH if step % 4 == 3 else LOW)
        admitted += ask(block, 2, now, batch).count(Decision.SPARE_CAPACITY)
        # By the high level a word is at most a burst, a charge and a second of skew ahead.
        beyond += int(block.words[2, 1]) - now * 128 > 3 * 128 * SECOND
        now += SECOND // 4
    assert admitted >= 20, "by both levels"
    assert beyond >= 10, "the case is what it says"
    assert block.engine.state()["healed"] == 0


@pytest.mark.parametrize("batch", [0, 300], ids=["one-by-one", "batch"])
def test_a_damaged_word_of_an_own_bucket_counts_once(batch: int) -> None:
    now = 1000 * SECOND
    block = active(now)
    block.set("level", 0)
    assert Decision.WITHIN_ALLOCATION in ask(block, 1, now, batch)
    assert block.engine.state()["healed"] == 0
    block.set_user(1, "tat", (now + 3600 * SECOND) * 128)  # an hour ahead: nobody has charged that
    for _ in range(3):
        ask(block, 1, now, batch)
        now += SECOND
    assert block.engine.state()["healed"] == 1


def test_a_tick_leaves_the_words_of_users_alone_but_for_one_in_73_minutes() -> None:
    """To look at them is to fetch every User's line from whoever decides for it."""
    now = 1000 * 2**42 + 5 * SECOND
    block = active(now)
    far = (now + 300 * 86_400 * SECOND) * 128  # nobody has charged that
    names = ("tat", "spare_tat", "horizon")
    for name in names:
        block.set_user(1, name, int(np.uint64(far % 2**64).astype(np.int64)))
    damaged = block.words
    for tick in range(1, 101):
        assert block.engine.tick(now + tick * 10 * SECOND)
    assert np.array_equal(
        block.words[:, [column(name) for name in names]], damaged[:, [column(name) for name in names]]
    )
    now = 1001 * 2**42
    assert block.engine.tick(now)
    own, spare, place = block.engine.words(1)
    assert own == spare == int(np.uint64(now * 128 % 2**64).astype(np.int64)), "at rest"
    assert place < own
