"""Who makes a block larger is killed, and stopped, at any moment: one block is in force, with every count in it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tmm_core import Config, Mechanism, MemoryLayoutError, engines
from tmm_core.memory import shared as shared_module

from .larger import RESERVE, config, digest_of, forked, lets_go, lived, seen
from .stepping import EVERY, SUPPORTED, ended, started

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked here")


class Growing:
    """A block that is full up to the last slot, however often it is made larger."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self.begin()

    def begin(self) -> None:
        """Make it, with a history."""
        for each in self.path.iterdir():
            each.unlink()
        self.now = lived(self.path, self.seed)
        self.told = self.seen()
        self.users = RESERVE

    def seen(self) -> dict[str, Any]:
        with Mechanism.look(str(self.path / "block")) as eye:
            return seen(eye, self.now)

    def next(self) -> Config:
        """A configuration with one User more than there are slots."""
        self.users += 1
        return config(self.path, self.users)

    def slots(self) -> int:
        with Mechanism.look(str(self.path / "block")) as eye:
            assert eye.block is not None
            return eye.block.header.user_slots - 1

    def digest(self) -> int:
        with Mechanism.look(str(self.path / "block")) as eye:
            assert eye.block is not None
            return digest_of(eye.block)


@pytest.fixture
def growing(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Growing:
    monkeypatch.setattr(engines, "_reserve", lambda _most, users, _srvs: (max(users, RESERVE) + 1, 16))
    return Growing(tmp_path, seed)


def opens(wanted: Config, now: int) -> Callable[[], object]:
    return lambda: Mechanism.open(wanted, start=now)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(60, id="60"),
        pytest.param(2000, id="2000", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_one_is_killed_at_a_random_moment(
    growing: Growing, kills: int, seed: int, record_property: Callable[[str, Any], None]
) -> None:
    source = random.Random(seed)
    begun = time.monotonic()
    forked(opens(growing.next(), growing.now))
    took = time.monotonic() - begun
    before = after = left = 0
    for kill in range(kills):
        if kill % 50 == 49:
            growing.begin()  # or there would be more and more Users
        wanted, digest = growing.next(), growing.digest()
        child = os.fork()
        if child == 0:
            try:
                Mechanism.open(wanted, start=growing.now)
                signal.pause()
            finally:
                os._exit(70)
        time.sleep(source.random() * took)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended by itself"
        assert growing.seen() == growing.told, "every count, bucket and state is there, once"
        if growing.slots() == growing.users:
            after += 1
            took *= 0.9  # half of them before it is done, and half after, whatever else the machine does
        else:
            before += 1
            took *= 1.1
            assert growing.digest() == digest, "not a byte of the old block has changed"
            left += sum(".larger." in each.name for each in growing.path.iterdir())
    figures = {
        "kills": kills,
        "old_block_in_force": before,
        "new_block_in_force": after,
        "found_unfinished": left,
    }
    print(figures)
    for name, figure in figures.items():
        record_property(name, figure)
    assert before > kills // 20, "before it was done"
    assert after > kills // 20, "and after"
    # The block is as good as ever, and nothing is left lying about.
    wanted = growing.next()
    with Mechanism.open(wanted, start=growing.now) as mechanism:
        requests = mechanism.snapshot(growing.now).counts.sum()
        mechanism.admit_at(mechanism.user(f"User {growing.users - 1}"), 5, growing.now)
        assert mechanism.snapshot(growing.now).counts.sum() == requests + 1
    assert len(list(growing.path.iterdir())) == 2, "the block and the names of its terms"


@pytest.mark.skipif(not SUPPORTED, reason="stepping needs Linux on x86-64 and a C compiler")
@pytest.mark.parametrize("every", EVERY)
@lets_go
def test_one_ends_at_a_system_call(
    growing: Growing, stepper: Any, every: int, monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    """Each place at which a file is made, locked, written or renamed: frozen there, and killed there."""
    monkeypatch.setattr(shared_module, "_CHANGES_WAIT_S", 0)
    stop, stops, step = 0, 0, 1 if every == 1 else 23
    found, requests = set(), sum(map(sum, growing.told["counts"].values()))
    decided = requests
    while True:
        wanted = growing.next()

        def act(wanted: Config = wanted) -> None:
            stepper.trap()
            Mechanism.open(wanted, start=growing.now)
            stepper.trap()

        child = started(act, stepper)
        reached = stepper.calls(child, stop)
        assert reached >= 0
        # Frozen: whoever looks sees all there is. Whoever starts waits for it, or is in the block that is in force.
        assert growing.seen() == growing.told, stop
        with suppress(MemoryLayoutError), Mechanism.open(config(growing.path), start=growing.now) as other:
            assert other.block is not None
            assert other.block.has_its_name, stop
            assert not other.block.succeeded, stop
            other.admit_at(0, 5, growing.now)
            requests += 1
            growing.told = growing.seen()
        assert sum(map(sum, growing.told["counts"].values())) == requests, stop
        assert growing.seen() == growing.told, stop
        ended(child)
        # Killed: one block is in force, and the next one to start finishes it.
        assert growing.seen() == growing.told, stop
        done = growing.slots() == growing.users
        found.add((done, reached == stop))
        forked(opens(wanted, growing.now))
        assert growing.slots() == growing.users, stop
        assert growing.seen() == growing.told, stop
        left = [each.name for each in growing.path.iterdir() if ".new" in each.name]
        assert left == [], stop
        stop, stops = stop + step, stops + 1
        if reached < stop - step:
            break  # it had come to its end
    assert found == {(False, True), (True, True), (True, False)}
    assert requests > decided, "some could decide while it was frozen"
    print(stops, "stops")
    record_property("system_call_stops", stops)


def test_one_that_dies_after_the_rename_and_before_its_word_leaves_nobody_behind(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with Mechanism.look(str(growing.path / "block")) as eye:
        assert eye.block is not None
        with monkeypatch.context() as patch:
            patch.setattr(shared_module.SharedBlock, "tell_successor", die)
            forked(opens(growing.next(), growing.now))
        assert not int(eye.block._words[2])
        assert eye.block.succeeded, "its name tells"
    assert growing.seen() == growing.told
    assert len(list(growing.path.glob("block.*.terms.*"))) == 2, "the old names were left"
    with Mechanism.open(growing.next(), start=growing.now) as mechanism:
        assert mechanism.user("User 0") == 1
    assert len(list(growing.path.iterdir())) == 2
