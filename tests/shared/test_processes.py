"""One truth per host: processes on one block get from a bucket what one process would, and no count is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tmm_core import Config, Decision, Mechanism

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shared block needs Linux or macOS")

#: The clock of all processes stands still here.
FROZEN = 10**12
METHODS = [
    method for method in ("fork", "spawn", "forkserver") if method in multiprocessing.get_all_start_methods()
]


def config(path: Path, **changes: Any) -> Config:
    """One User of 1,000 units per second and a burst of one second: 1,001 from rest; no spare capacity is shared."""
    terms: dict[str, Any] = {
        "allocations": {"Northern Energy": 1000.0, "Hydra Ltd": 500.0}, "priority": ["7.4"], "sharing": "none",
        "activation_s": 0.01, "shared": str(path / "block"), **changes,
    }  # fmt: skip
    return Config(20_000, 10_000, **terms)


def ask(path: Path, requests: int, batch: int, answer: Connection) -> None:
    """Be a worker: ask for one User at the frozen time, and say how often each decision came."""
    with Mechanism.open(config(path), start=FROZEN) as mechanism:
        answer.send(asked(mechanism, requests, batch))


def asked(mechanism: Mechanism, requests: int, batch: int) -> list[int]:
    user, srv = mechanism.user("Northern Energy"), mechanism.srv("4.1.1")
    got = [0, 0, 0, 0]
    if batch:
        users, srvs = np.full(batch, user, np.uint32), np.full(batch, srv, np.uint16)
        for _ in range(requests // batch):
            for decision, n in enumerate(
                np.bincount(mechanism.admit_many(users, srvs, now=FROZEN), minlength=4)
            ):
                got[decision] += int(n)
    else:
        for _ in range(requests):
            got[mechanism.admit_at(user, srv, FROZEN)] += 1
    return got


def run(target: Any, method: str, n: int, *args: Any) -> list[Any]:
    context = multiprocessing.get_context(method)
    ends, workers = [], []
    for _ in range(n):
        here, there = context.Pipe(duplex=False)
        workers.append(context.Process(target=target, args=(*args, there)))  # type: ignore[attr-defined]
        ends.append(here)
    for worker in workers:
        worker.start()
    answers = [end.recv() for end in ends]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    return answers


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Mechanism]:
    """Look at the block with a process of its own that admits nothing; active, so that limits hold."""
    with Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
        other, srv = mechanism.user("Hydra Ltd"), mechanism.srv("4.1.1")
        while not mechanism.snapshot(FROZEN).active:
            mechanism.admit_at(other, srv, FROZEN)
        yield mechanism


@pytest.mark.parametrize(
    ("method", "batch"),
    [
        # A spawned worker takes a second to start: on every change one by one, in batches in the long run.
        pytest.param(
            method, batch, id=f"{method}-{'batches' if batch else 'one-by-one'}",
            marks=pytest.mark.slow if batch and method != "fork" else (),
        )
        for method in METHODS
        for batch in (0, 100)
    ],
)  # fmt: skip
def test_processes_get_from_a_bucket_exactly_what_one_would(
    held: Mechanism, tmp_path: Path, method: str, batch: int
) -> None:
    before = held.snapshot(FROZEN).counts
    answers = run(ask, method, 4, tmp_path, 2000, batch)
    # 1,000 units per second and a burst of one second: 1 + 1000 at one instant, of 8,000 asked for.
    assert sum(got[Decision.WITHIN_ALLOCATION] for got in answers) == 1001
    assert sum(got[Decision.THROTTLED] for got in answers) == 8000 - 1001
    grown = held.snapshot(FROZEN).counts - before
    assert grown.sum(axis=(0, 1)).tolist() == [sum(column) for column in zip(*answers, strict=True)]


@pytest.mark.skipif("fork" not in METHODS, reason="no fork here")
@pytest.mark.parametrize("batch", [0, 100], ids=["one-by-one", "batches"])
def test_children_forked_after_the_start_never_count_in_their_parents_slab(
    held: Mechanism, tmp_path: Path, batch: int
) -> None:
    """As gunicorn --preload does: the application is there before the workers are."""
    before, used = held.snapshot(FROZEN).counts, len(held.engine.owners())
    own = held.block.slabs if held.block else frozenset()

    def child(answer: Connection) -> None:
        assert held.engine.forked
        got = asked(held, 2000, batch)
        assert held.block is not None
        assert not held.block.slabs & own
        answer.send((got, sorted(held.block.slabs)))

    context = multiprocessing.get_context("fork")
    answers, workers = [], []
    for _ in range(4):
        here, there = context.Pipe(duplex=False)
        workers.append(context.Process(target=child, args=(there,)))
        workers[-1].start()
        answers.append(here)
    mine = asked(held, 2000, batch)
    got = [answer.recv() for answer in answers]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert not held.engine.forked
    decided = [mine, *(each for each, _ in got)]
    assert sum(each[Decision.WITHIN_ALLOCATION] for each in decided) == 1001
    grown = held.snapshot(FROZEN).counts - before
    assert grown.sum(axis=(0, 1)).tolist() == [sum(column) for column in zip(*decided, strict=True)]
    assert len(held.engine.owners()) > used


def test_a_dead_workers_slab_is_adopted_and_its_counts_stay(tmp_path: Path) -> None:
    def worker(end: str) -> None:
        mechanism = Mechanism.open(config(tmp_path), start=FROZEN)
        asked(mechanism, 100, 0)
        if end == "killed":
            os.kill(os.getpid(), 9)
        os._exit(0)

    with Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
        for end in ("killed", "exited", "killed"):
            process = multiprocessing.get_context("fork").Process(target=worker, args=(end,))
            process.start()
            process.join(30)
        assert mechanism.snapshot(FROZEN).counts.sum() == 300
        # The common slab, ours, and one that had three owners one after the other.
        assert [adopted for _, adopted in mechanism.engine.owners()] == [0, 1, 3]


def test_what_one_process_applies_all_see_at_one_moment(tmp_path: Path) -> None:
    with Mechanism.open(config(tmp_path), start=FROZEN) as one, Mechanism.open(config(tmp_path)) as two:
        assert one.block is not None
        assert two.block is not None
        assert one.block.header.block_id == two.block.header.block_id
        gate = two.gate("90-B3-D5-1F-30-01-00-00")
        assert two.user("New Ltd") == 0 == gate.slot
        assert two.snapshot().generation == 1, "the same configuration twice is one version"
        changed = config(
            tmp_path, allocations={"New Ltd": 7.0, "Hydra Ltd": 500.0},
            user_ids={"90-B3-D5-1F-30-01-00-00": "New Ltd"}, priority=["7.4", "2.2"],
        )  # fmt: skip
        one.apply(changed)
        assert two.user("New Ltd") == 3 == gate.slot == one.user("New Ltd")
        assert two.admit(two.user("New Ltd"), two.srv("2.2")) is Decision.PRIORITY
        assert two.user("Northern Energy") == 0, "no longer named: an unknown User"
        snapshot = two.snapshot()
        assert (snapshot.version, snapshot.generation) == (changed.version, 2)
        assert snapshot.users == ["(unknown)", "Northern Energy", "Hydra Ltd", "New Ltd"]
        one.apply(changed)
        two.apply(changed)
        assert one.snapshot().generation == 2, "the same once more changes nothing"


@pytest.mark.parametrize("allocating", [True, False], ids=["allocated", "written"])
def test_a_block_grows_in_place_and_old_mappings_stay_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocating: bool
) -> None:
    if not allocating:  # as on macOS: zeros are written, and must not be written over what is there
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with Mechanism.open(config(tmp_path), start=FROZEN) as one, Mechanism.open(config(tmp_path)) as two:
        assert one.block is not None
        first = os.stat(one.block.path).st_blocks
        northern = two.user("Northern Energy")
        assert two.admit_at(northern, 5, FROZEN)
        words = two.engine.words(northern)
        many = {"Northern Energy": 1000.0, **{f"User {number}": 1.0 for number in range(3000)}}
        one.apply(config(tmp_path, allocations=many))
        assert two.admit_at(two.user("User 2999"), 5, FROZEN)
        assert one.admit_at(one.user("User 2999"), 5, FROZEN)
        assert one.snapshot(FROZEN).counts[one.user("User 2999")].sum() == 2
        assert os.stat(one.block.path).st_blocks > 4 * first
        assert one.engine.words(northern) == words, "its bucket has survived"
        assert one.snapshot(FROZEN).counts[northern].sum() == 1


@pytest.mark.skipif("fork" not in METHODS, reason="no fork here")
def test_a_parents_slab_is_free_when_the_parent_has_gone_and_its_children_live(tmp_path: Path) -> None:
    """A child inherits open files: were the lock among them, nobody could adopt the parent's slab."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def parent() -> None:
        mechanism = Mechanism.open(config(tmp_path), start=FROZEN)
        asked(mechanism, 10, 0)
        child = os.fork()
        if child == 0:
            there.send(os.getpid())
            signal.pause()
        os._exit(0)

    process = os.fork()
    if process == 0:
        parent()
    os.waitpid(process, 0)
    child = here.recv()
    try:
        with Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
            assert mechanism.block is not None
            assert mechanism.block.slabs == {1}, "the parent's, adopted although its child lives"
            assert mechanism.snapshot(FROZEN).counts.sum() == 10
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.skipif("fork" not in METHODS, reason="no fork here")
def test_no_call_of_a_forked_child_writes_to_its_parents_slab(tmp_path: Path) -> None:
    with Mechanism.open(config(tmp_path), start=FROZEN) as mechanism:
        assert mechanism.block is not None
        user, srv = mechanism.user("Northern Energy"), mechanism.srv("4.1.1")
        gate, lane = mechanism.gate("Northern Energy"), mechanism.lane()
        for _ in range(5):  # units held back: a tick of the child's must not charge them for its parent
            mechanism.admit_at(user, srv, FROZEN)
        header, layout = mechanism.block.header, mechanism.block.layout
        owned = sorted(mechanism.block.slabs)
        assert owned == [1, 2], "one for calls under the GIL, one for the lane"
        ranges = [
            r for slab in owned for r in layout.slab_ranges(header.user_slots, header.srv_slots, slab, 8)
        ]

        def slabs() -> list[bytes]:
            assert mechanism.block is not None
            return [mechanism.block.memory[begin : begin + n].tobytes() for begin, n in ranges]

        calls: dict[str, Any] = {
            "gate": lambda: gate.admit_at(srv, FROZEN),
            "gate, after a call that starts over": lambda: (
                mechanism.admit_at(user, srv, FROZEN),
                gate.admit_at(srv, FROZEN),
            ),
            "tick": lambda: mechanism.tick(FROZEN + 10**10),
            "retry": lambda: mechanism.retry_after(user, FROZEN),
            "batch": lambda: mechanism.admit_many(
                np.full(99, user, np.uint32), np.full(99, srv, np.uint16), now=FROZEN
            ),
            "small": lambda: mechanism.admit_many(
                np.full(2, user, np.uint32), np.full(2, srv, np.uint16), now=FROZEN
            ),
            "recorded": lambda: mechanism.engine.admit_recorded(user, srv, FROZEN),
            "lane": lambda: mechanism.lane().close(),
            "apply": lambda: mechanism.apply(config(tmp_path, allocations={"Northern Energy": 999.0})),
            "snapshot": lambda: mechanism.snapshot(FROZEN + 10**11),
            "close": mechanism.close,
        }
        for name, call in calls.items():
            before = slabs()
            child = os.fork()
            if child == 0:
                try:
                    call()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, name
            assert slabs() == before, name
        assert not mechanism.engine.forked
        lane.close()
