"""The model of the DSP: worked by hand, and against SimPy, which knows nothing of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tmm_core.operations.simulation.models import Dsp
from tmm_core.operations.simulation.scenario import DspTerms

FAR = 1e9
PLAIN = DspTerms(queue_s=FAR, timeout_s=FAR, strain_s=FAR, slowdown=0.0, restart_s=10.0)


def words(n: int, born: int) -> Any:
    return np.full(n, born << 28, dtype=np.int64)


def test_what_fits_is_answered_in_the_step_it_comes_in() -> None:
    dsp = Dsp(PLAIN, 100.0, 0.1)  # ten a step
    served = dsp.step(0, words(10, 0))
    assert (served.answered.size, served.failed.size, dsp.waiting) == (10, 0, 0)


def test_what_does_not_fit_waits_its_turn_and_idle_capacity_is_not_saved() -> None:
    dsp = Dsp(PLAIN, 100.0, 0.1)
    dsp.step(0, words(0, 0))
    assert dsp.step(1, words(25, 1)).answered.size == 10, "the idle step before gives nothing"
    assert dsp.wait_s == pytest.approx(0.15)
    assert dsp.step(2, words(2, 2)).answered.tolist() == words(10, 1).tolist(), "first in, first out"
    assert dsp.step(3, words(0, 3)).answered.tolist() == [*words(5, 1).tolist(), *words(2, 2).tolist()]


def test_who_waits_too_long_has_gone_and_the_work_is_done_for_nobody() -> None:
    terms = DspTerms(queue_s=FAR, timeout_s=0.3, strain_s=FAR, slowdown=0.0)
    dsp = Dsp(terms, 100.0, 0.1)
    dsp.step(0, words(50, 0))
    assert [dsp.step(step, words(0, step)).failed.size for step in (1, 2)] == [0, 0]
    served = dsp.step(3, words(0, 3))  # 30 of 50 were done in the steps 0 to 2
    assert (served.answered.size, served.failed.size) == (0, 20)
    dsp.step(4, words(0, 4))
    assert (dsp.wasted, dsp.waiting) == (20, 0)


def test_under_strain_it_gets_slower() -> None:
    terms = DspTerms(queue_s=FAR, timeout_s=FAR, strain_s=1.0, slowdown=0.5)
    dsp = Dsp(terms, 100.0, 0.1)
    # 3 s of work wait, 2 s beyond the strain: the capacity is halved, 5 a step.
    assert dsp.step(0, words(300, 0)).answered.size == 5


def test_without_room_it_fails_loses_all_and_starts_again() -> None:
    terms = DspTerms(queue_s=1.0, timeout_s=FAR, strain_s=FAR, slowdown=0.0, restart_s=0.2)
    dsp = Dsp(terms, 100.0, 0.1)
    dsp.step(0, words(60, 0))
    served = dsp.step(1, words(60, 1))  # 50 + 60 > 100
    assert (served.answered.size, served.failed.size, dsp.failures) == (0, 110, 1)
    assert dsp.step(2, words(7, 2)).failed.size == 7
    assert dsp.step(3, words(7, 3)).answered.size == 7, "two steps after it failed"


def test_an_outage_loses_what_waits_and_a_slow_dsp_does_less() -> None:
    dsp = Dsp(PLAIN, 100.0, 0.1)
    assert dsp.step(0, words(30, 0), factor=0.5).answered.size == 5
    assert dsp.step(1, words(3, 1), out=True).failed.size == 28
    assert dsp.unanswered() == 0


def test_costs_count() -> None:
    costs = np.ones(4)
    costs[2] = 4.0
    dsp = Dsp(PLAIN, 100.0, 0.1, costs)
    mixed = words(5, 0) | (np.array([2, 2, 2, 1, 1]) << 8)
    assert dsp.step(0, mixed).answered.size == 2, "4 + 4 of 10 units; the third does not fit"
    assert dsp.waiting == 6
    assert dsp.step(1, words(0, 1)).answered.size == 3, "2 were left over, and 10 came"


def test_the_model_agrees_with_simpy() -> None:
    """An overload with time-outs: each request's fate, event by event in SimPy, within a step of the model's."""
    simpy = pytest.importorskip("simpy")
    capacity, step_s, timeout_s, steps = 200.0, 0.01, 3.0, 2000
    random = np.random.Generator(np.random.PCG64(7))
    rate = np.where((np.arange(steps) > 300) & (np.arange(steps) < 1100), 380.0, 120.0)
    arrivals = random.poisson(rate * step_s)

    dsp = Dsp(DspTerms(FAR, timeout_s, FAR, 0.0), capacity, step_s)
    answered, failed = np.zeros(steps), np.zeros(steps)
    waits: Counter[int] = Counter()
    for step in range(steps):
        served = dsp.step(step, words(int(arrivals[step]), step))
        answered[step], failed[step] = served.answered.size, served.failed.size
        waits.update((step + 1 - (served.answered >> 28)).tolist())

    environment = simpy.Environment()
    server = simpy.Resource(environment, capacity=1)
    theirs, gone, their_waits = np.zeros(steps + 1), np.zeros(steps + 1), []

    def request() -> Any:
        began = environment.now
        with server.request() as turn:
            yield turn
            yield environment.timeout(1 / capacity)
        waited = environment.now - began
        if waited <= timeout_s:
            theirs[min(steps, int(environment.now / step_s))] += 1
            their_waits.append(waited)
        elif began + timeout_s < steps * step_s:
            gone[int((began + timeout_s) / step_s)] += 1

    def source() -> Any:
        for step in range(steps):
            for _ in range(int(arrivals[step])):
                environment.process(request())
            yield environment.timeout(step_s)

    environment.process(source())
    environment.run(until=steps * step_s + 30)
    assert failed.sum() > 500, "the overload is one"
    assert failed.sum() == pytest.approx(gone.sum(), abs=6), "who gives up in the step it is answered in"
    # Never more than two steps of capacity apart, at any time.
    assert np.abs(np.cumsum(answered) - np.cumsum(theirs[:-1])).max() <= 2 * capacity * step_s
    mine = sum(wait * n for wait, n in waits.items()) * step_s / sum(waits.values())
    assert mine == pytest.approx(float(np.mean(their_waits)), abs=step_s)
