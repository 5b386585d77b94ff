"""How the simulator measures sharing: against exact shares, and with a reason where there is nothing to judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tmm_core import Decision
from tmm_core.operations.simulation.result import jain, max_min

from .shared_out import WEIGHTS, shares_of


def test_shares_are_the_max_min_fair_ones() -> None:
    # 6 units, weights 1, 1, 2: the first is content with 1; 5 left for weights 1 and 2.
    shares = max_min(np.array([1.0, 9.0, 9.0]), np.array([1.0, 1.0, 2.0]), 6.0)
    assert shares.tolist() == pytest.approx([1, 5 / 3, 10 / 3])
    assert jain(np.array([1.0, 1.0, 4.0])) == pytest.approx(36 / (3 * 18))


def test_sharing_by_weight_is_fair_and_by_demand_is_not() -> None:
    # 400 to share: 100, 100 and 200 by weight. A and B alike, C half of what is fair: ratios 1.5, 1.5 and 0.5.
    fair = {"A": (100, 900), "B": (100, 900), "C": (200, 100)}
    assert shares_of(10, fair).fairness == pytest.approx(1)
    unfair = shares_of(10, {"A": (150, 900), "B": (150, 900), "C": (100, 200)})
    assert unfair.fairness == pytest.approx(3.5**2 / (3 * (1.5**2 * 2 + 0.5**2)))
    assert unfair.got_of_fair == pytest.approx({"A": 1.5, "B": 1.5, "C": 0.5})


def test_what_was_spare_before_a_user_asked_is_no_part_of_its_share() -> None:
    """A has all of 300 in three quarters, wanting more; in the last B asks as well, and each has half."""
    alone, both = {"A": (100, 50)}, {"A": (50, 50), "B": (50, 50)}
    assert shares_of(10, alone, alone, alone, both).fairness == pytest.approx(1)
    greedy = {"A": (75, 25), "B": (25, 75)}
    found = shares_of(10, alone, alone, alone, greedy)
    assert found.fairness is not None
    assert found.fairness < 0.95, "a quarter in which it does not have its half counts"


def test_where_there_is_no_sharing_to_judge_the_reason_is_said() -> None:
    some = {"A": (100, 10), "B": (100, 10)}
    assert shares_of(20, {"A": (100, 0)}).not_measured == "nobody was refused spare capacity"
    assert shares_of(20, {"A": (100, 5), "B": (90, 0)}).not_measured == "A alone was refused spare capacity"
    full = shares_of(20, {"A": (0, 50), "B": (1, 50)})
    assert full.not_measured == "more than 1.0 % of the threshold was spare in 0 s of 20 s with refusals"
    assert shares_of(9, some).not_measured.endswith("in 9 s of 9 s with refusals")
    little = shares_of(10, {"A": (196, 10), "B": (3, 1), "C": (1, 0)})
    assert little.not_measured == "fewer than two of the refused had 50 Service Requests to share"
    for each in (full, little):
        assert each.fairness is None
    assert shares_of(10, some).not_measured == ""


def test_new_allocations_are_new_weights() -> None:
    shares = shares_of(10, {"A": (100, 10), "B": (100, 10)})
    assert shares.fairness == pytest.approx(1)
    shares.apply(replace(WEIGHTS, allocations={"A": 300.0, "B": 100.0, "C": 200.0}))
    again = np.zeros((1, 4, 4, 2), dtype=np.int64)
    again[0, 1:3, Decision.SPARE_CAPACITY, 1], again[0, 1:3, Decision.THROTTLED, 0] = (300, 100), 10
    for _ in range(10):
        shares.add(again)
    # By the new weights 300 and 100 of 400 are fair; by the old ones they were not.
    assert shares.fairness == pytest.approx(1)
