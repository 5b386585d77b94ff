"""The clients' side: who sends a refused or failed Service Request again, and when."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tmm_core.operations.simulation.scenario import Client
from tmm_core.operations.simulation.streams import uniform
from tmm_core.operations.simulation.words import ATTEMPTS, Words, born_of, users_of

__all__ = ["Clients"]

_Floats = np.ndarray[Any, np.dtype[np.float64]]
_NOTHING: Words = np.empty(0, dtype=np.int64)


class Clients:
    """Keeps Service Requests until they are sent again: 16 bytes each, and none beyond its sender's patience.

    *Not thread-safe.*

    Parameters
    ----------
    clients : sequence of Client
        By User slot.
    step_s : float
        Seconds of a step.
    seed : int

    Attributes
    ----------
    waiting : int
        Service Requests that will be sent again.
    """

    def __init__(self, clients: Sequence[Client], step_s: float, seed: int) -> None:
        def of(values: Sequence[float]) -> _Floats:
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
            return _NOTHING
        words = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self.waiting -= words.size
        return words

    def failed(self, words: Words, step: int, retry_after_s: _Floats | None = None) -> Words:
        """Take back Service Requests that were refused or failed; returns those their senders give up.

        Parameters
        ----------
        words : ndarray of int64
        step : int
        retry_after_s : ndarray of float64, optional
            Seconds, as the answers said.
        """
        if not words.size:
            return _NOTHING
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
