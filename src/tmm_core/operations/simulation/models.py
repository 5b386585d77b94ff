"""What is modelled around the Mechanism: the clients, who send again, and the DSP.

The clients' side is who sends a refused or failed Service Request again, and when. The DSP is one queue, first in
first out, with time-outs, strain and failure. Nothing about the real one is published. The model has what makes
overload dangerous: work that comes faster than it is done waits; who waits too long has gone by the time it is done,
and sends it again; and a system under strain gets slower, and at last fails.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tmm_core.operations.simulation import ATTEMPTS, NOTHING, Words, born_of, srvs_of, users_of
from tmm_core.operations.simulation.scenario import Client, DspTerms
from tmm_core.operations.simulation.streams import uniform
from tmm_core.operations.traffic import Floats, Ints


class Clients:
    """Keeps Service Requests until they are sent again: 16 bytes each, and none beyond its sender's patience.

    *Not thread-safe.*

    Parameters
    ----------
    clients : sequence of Client
        By User slot.
    step_s : float
        Seconds of a step.

    Attributes
    ----------
    waiting : int
        Service Requests that will be sent again.
    """

    def __init__(self, clients: Sequence[Client], step_s: float, seed: int) -> None:
        def of(values: Sequence[float]) -> Floats:
            return np.array(values, dtype=np.float64)

        self._base = of([each.base_s for each in clients])
        self._factor = of(
            [each.factor if each.kind in ("exponential", "retry-after") else 1 for each in clients]
        )
        self._cap = of([max(each.cap_s, each.base_s) for each in clients])
        self._jitter = of(
            [each.jitter if each.kind in ("exponential", "retry-after") else 0 for each in clients]
        )
        self._honours = np.array([each.kind == "retry-after" for each in clients])
        self._attempts = np.array([1 if each.kind == "no-retry" else each.attempts for each in clients])
        self._patience = np.array([round(each.patience_s / step_s) for each in clients])
        self._step_s, self._steps = step_s, round(1 / step_s)
        self._random = np.random.PCG64([seed, 0x7265747279])
        self._later: dict[int, list[tuple[Words, Words]]] = {}  # by second: words and their steps
        self._now: dict[int, list[Words]] = {}  # by step, of this second
        self._put_off: list[tuple[Words, Words]] = []  # since the second began, for later ones
        self._second = -1
        self.waiting = 0

    def due(self, step: int) -> Words:
        """Return what is sent again in a step; called for each in turn."""
        second = step // self._steps
        if second != self._second:
            self._begin(second)
        parts = self._now.pop(step, None)
        if parts is None:
            return NOTHING
        words = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self.waiting -= words.size
        return words

    def failed(self, words: Words, step: int, retry_after_s: Floats | None = None) -> Words:
        """Take back Service Requests that were refused or failed; returns those their senders give up.

        Parameters
        ----------
        words : ndarray of int64
        retry_after_s : ndarray of float64, optional
            Seconds, as the answers said.
        """
        if not words.size:
            return NOTHING
        users = users_of(words)
        attempts = ((words >> ATTEMPTS) & 0xFF) + 1
        delay = np.minimum(self._cap[users], self._base[users] * self._factor[users] ** (attempts - 1))
        jitter = self._jitter[users]
        if jitter.any():
            delay *= 1 - jitter * uniform(self._random.random_raw(words.size))
        if retry_after_s is not None:
            delay = np.where(self._honours[users], retry_after_s, delay)
        due = step + np.maximum(1, np.ceil(delay / self._step_s)).astype(np.int64)
        stays = (attempts < self._attempts[users]) & (due - born_of(words) <= self._patience[users])
        again, due = words[stays] + (1 << ATTEMPTS), due[stays]
        self.waiting += again.size
        this_second = due < (self._second + 1) * self._steps
        if this_second.any():
            self._split(self._now, again[this_second], due[this_second])
            again, due = again[~this_second], due[~this_second]
        if again.size:
            self._put_off.append((again, due))
        given_up: Words = words[~stays]
        return given_up

    def _begin(self, second: int) -> None:
        self._second = second
        if self._put_off:
            words = np.concatenate([words for words, _ in self._put_off])
            due = np.concatenate([due for _, due in self._put_off])
            self._put_off.clear()
            order = np.argsort(due, kind="stable")
            words, due = words[order], due[order]
            seconds = due // self._steps
            edges = [0, *(np.flatnonzero(np.diff(seconds)) + 1).tolist(), seconds.size]
            for begin, end in pairwise(edges):
                self._later.setdefault(int(seconds[begin]), []).append((words[begin:end], due[begin:end]))
        for words, due in self._later.pop(second, ()):
            self._split(self._now, words, due)

    @staticmethod
    def _split(into: dict[int, list[Words]], words: Words, due: Words) -> None:
        order = np.argsort(due, kind="stable")
        words, due = words[order], due[order]
        edges = [0, *(np.flatnonzero(np.diff(due)) + 1).tolist(), due.size]
        for begin, end in pairwise(edges):
            into.setdefault(int(due[begin]), []).append(words[begin:end])


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What came of one step: words answered in time, and words whose senders see a failure now."""

    answered: Words
    failed: Words


@dataclass(frozen=True, slots=True, eq=False)
class ServedSecond:
    """What came of a second without trouble: how many were answered, how much waited at most at the end of a step,
    in seconds of the capacity, and how many were answered after so many steps.
    """

    answered: int
    wait_s: float
    waits: Ints


@dataclass(slots=True, eq=False)
class _Chunk:
    """Service Requests accepted in one step, from `head` on still waiting."""

    step: int
    words: Words
    head: int = 0
    late: bool = False  # their senders have given up waiting


class Dsp:
    """The DSP of one policy. *Not thread-safe.*

    Parameters
    ----------
    capacity : float
        Units per second.
    step_s : float
        Seconds of one step.
    costs : ndarray of float64, optional
        Units by SRV number; None: one unit each.

    Attributes
    ----------
    waiting : float
        Units.
    failures : int
        Times it failed for want of room.
    wasted : int
        Service Requests it worked on for nobody.
    """

    def __init__(
        self,
        terms: DspTerms,
        capacity: float,
        step_s: float,
        costs: Floats | None = None,
    ) -> None:
        self._terms, self._capacity, self._step_s, self._costs = terms, capacity, step_s, costs
        self._queue: deque[_Chunk] = deque()
        self._by_step: dict[int, _Chunk] = {}
        self._patience = round(terms.timeout_s / step_s)
        self._credit = 0.0
        self._down_until = -1
        self.waiting = 0.0
        self.failures = 0
        self.wasted = 0

    @property
    def wait_s(self) -> float:
        """Seconds of work waiting, at the full capacity."""
        return self.waiting / self._capacity

    def is_down(self, step: int) -> bool:
        """Tell whether it has failed and not yet started again."""
        return step < self._down_until

    def is_idle(self, step: int, most: int) -> bool:
        """Tell whether nothing waits, and up to so many of one unit each are all answered in the step they come in."""
        return not self._queue and not self.is_down(step) and most <= int(self._capacity * self._step_s)

    def unanswered(self) -> int:
        """Service Requests that wait, and whose senders still do."""
        return sum(chunk.words.size - chunk.head for chunk in self._queue if not chunk.late)

    def step(self, step: int, words: Words, *, factor: float = 1.0, out: bool = False) -> Served:
        """Accept Service Requests and work for one step.

        Parameters
        ----------
        step : int
            One more than at the last call.
        words : ndarray of int64
        factor : float
            Of the capacity.
        out : bool
            An outage: nothing is accepted, nothing is done, what waits is lost.
        """
        failed = [self._give_up(step)]
        if out or self.is_down(step):
            failed += [self._lose(), words]
            return Served(NOTHING, np.concatenate(failed))
        if words.size:
            chunk = _Chunk(step, words)
            self._queue.append(chunk)
            self._by_step[step] = chunk
            self.waiting += self._units(words)
            if self.waiting > self._terms.queue_s * self._capacity:
                self.failures += 1
                self._down_until = step + round(self._terms.restart_s / self._step_s)
                failed.append(self._lose())
                return Served(NOTHING, np.concatenate(failed))
        answered = self._work(factor)
        return Served(answered, np.concatenate(failed))

    def second(self, first: int, sizes: Ints, accepted: Callable[[], Words]) -> ServedSecond | None:
        """Accept and answer Service Requests of one unit each for one second, as `step` would.

        Parameters
        ----------
        first : int
            The first step, one more than at the last call.
        sizes : ndarray of int64, shape (steps,)
            How many are accepted in each step.
        accepted : callable
            Returns their words, in order; asked for only where some still wait at the end.

        Returns
        -------
        ServedSecond or None
            None, and nothing is done, where some would wait long enough for strain, time-outs or a failure, or
            it takes more than this second to get to them: `step` must be called for each step.
        """
        terms = self._terms
        if self.is_down(first) or terms.timeout_s < terms.strain_s + 4 * self._step_s:
            return None
        if any(chunk.late for chunk in self._queue):
            return None
        each_step = self._capacity * self._step_s
        if self.is_idle(first, int(sizes.max())):
            return ServedSecond(int(sizes.sum()), 0.0, np.array([0, sizes.sum()]))  # all within their step
        strained = min(terms.strain_s, terms.queue_s) * self._capacity
        waiting, credit, highest = self.waiting, self._credit, 0.0
        came: list[int] = sizes.tolist()
        taken: list[int] = []
        for size in came:
            waiting += size
            if waiting > strained:
                return None
            credit += each_step
            done = int(credit if credit < waiting else waiting)
            taken.append(done)
            waiting -= done
            credit = credit - done if waiting else 0.0
            if waiting > highest:
                highest = waiting
        left, words = int(waiting), NOTHING
        if left:
            words = accepted()
            if left > words.size:
                return None
        before = list(self._queue)
        waits = _waits(
            [*(chunk.step for chunk in before), *range(first, first + len(came))],
            [*(chunk.words.size - chunk.head for chunk in before), *came],
            first,
            taken,
        )
        self._queue.clear()
        self._by_step.clear()
        for step in range(len(came) - 1, -1, -1):  # the last ones wait
            if not left:
                break
            size = min(left, came[step])
            if size:
                chunk = _Chunk(first + step, words[words.size - size :])
                words = words[: words.size - came[step]]
                self._queue.appendleft(chunk)
                self._by_step[chunk.step] = chunk
                left -= size
        self.waiting, self._credit = waiting, credit
        return ServedSecond(sum(taken), highest / self._capacity, waits)

    def queued(self) -> Words:
        """Return the words that wait, and whose senders still do."""
        found = [chunk.words[chunk.head :] for chunk in self._queue if not chunk.late]
        return np.concatenate(found) if found else NOTHING

    def _units(self, words: Words) -> float:
        return float(words.size) if self._costs is None else float(self._costs[srvs_of(words)].sum())

    def _give_up(self, step: int) -> Words:
        """Return what has waited as long as its senders do."""
        chunk = self._by_step.pop(step - self._patience, None)
        if chunk is None or chunk.head == chunk.words.size:
            return NOTHING
        chunk.late = True
        return chunk.words[chunk.head :]

    def _lose(self) -> Words:
        lost = self.queued()
        self._queue.clear()
        self._by_step.clear()
        self.waiting = self._credit = 0.0
        return lost

    def _work(self, factor: float) -> Words:
        strain = max(0.0, self.wait_s - self._terms.strain_s)
        rate = self._capacity * factor / (1 + self._terms.slowdown * strain)
        self._credit += rate * self._step_s
        done: list[Words] = []
        while self._queue:
            chunk = self._queue[0]
            taken, cost = self._affordable(chunk)
            if taken:
                if chunk.late:
                    self.wasted += taken
                else:
                    done.append(chunk.words[chunk.head : chunk.head + taken])
                chunk.head += taken
                self.waiting -= cost
                self._credit -= cost
            if chunk.head < chunk.words.size:
                return np.concatenate(done) if done else NOTHING
            self._queue.popleft()
        self.waiting = 0.0
        self._credit = 0.0  # idle capacity cannot be saved up
        return np.concatenate(done) if done else NOTHING

    def _affordable(self, chunk: _Chunk) -> tuple[int, float]:
        left = chunk.words.size - chunk.head
        if self._costs is None:
            taken = min(int(self._credit), left)
            return taken, float(taken)
        sums = np.cumsum(self._costs[srvs_of(chunk.words[chunk.head :])])
        taken = int(np.searchsorted(sums, self._credit, side="right"))
        return taken, float(sums[taken - 1]) if taken else 0.0


def _waits(born: list[int], sizes: list[int], first: int, taken: list[int]) -> Ints:
    """Return how many of a queue, first in first out, are answered after so many steps.

    Where the running sums of what came and of what is taken are cut, all between two cuts came and went together; a cut
    of both is there twice, with nothing in between.
    """
    came, went = np.cumsum(sizes), np.cumsum(taken)
    cuts = np.sort(np.concatenate([came, went]))
    cuts = cuts[cuts <= went[-1]]
    came_at = np.array(born)[np.searchsorted(came, cuts)]
    went_at = first + np.searchsorted(went, cuts)
    sizes_between = np.diff(cuts, prepend=0)
    # Whole numbers far below 2**53: their sums as floating point are exact.
    return np.bincount(went_at + 1 - came_at, sizes_between).astype(np.int64)
