"""SECMP0067, requirement by requirement: F1 to F9 of its Modification Report; the map is docs/requirements.md."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from traffic_days import S, drive

from tmm_core import Config, ConfigError, Decision, Mechanism, PriorityList, allocate
from tmm_core.policy.parameters import Parameters
from tmm_core.policy.portfolio import METER_KINDS, Portfolio, UserPortfolio
from tmm_core.policy.validation import CATEGORIES

ROOT = Path(__file__).parents[1]
ALLOCATIONS = {"Northern Energy": 400.0, "Avon Power": 200.0, "Other Party": 20.0}


def mechanism(**terms: object) -> Mechanism:
    return Mechanism(Config(1500, 1000, allocations=ALLOCATIONS, priority=["7.4"], **terms), start=0)  # type: ignore[arg-type]


def test_f1_capacity_threshold_and_an_allocation_each_are_configured_quantities() -> None:
    """A maximum system capacity, an operating threshold within it, and an allocation for every Service User."""
    config = mechanism().config
    assert (config.system_capacity, config.operating_threshold) == (1500, 1000)
    assert dict(config.allocations) == ALLOCATIONS
    with pytest.raises(ConfigError, match="operating_threshold 1600 is above system_capacity 1500"):
        Config(1500, 1600, allocations=ALLOCATIONS)


def test_f2_it_becomes_active_only_when_the_system_reaches_the_operating_threshold() -> None:
    """Far above every allocation but below the threshold nobody is throttled; above the threshold somebody is."""
    calm = mechanism()
    found = drive(calm, 30, {"Other Party": 900.0})
    assert not calm.snapshot().activations
    assert found[..., Decision.THROTTLED].sum() == 0
    busy = mechanism()
    found = drive(busy, 5, {"Other Party": 1500.0})
    assert busy.snapshot().active
    assert found[..., Decision.THROTTLED].sum() > 0


def test_f3_who_exceeds_is_throttled_down_to_its_allocation_or_the_threshold_whichever_is_greater() -> None:
    busy = mechanism()
    # Alone it may have the whole threshold, although its allocation is 20.
    drive(busy, 3, {"Other Party": 5000.0})
    alone = drive(busy, 5, {"Other Party": 5000.0}, begin=3 * S)[..., 1:].sum() / 5
    assert alone == pytest.approx(1000, rel=0.02)
    # Where others need the threshold, it keeps its allocation and its share of what they leave: none to speak of.
    crowd = {"Northern Energy": 5000.0, "Avon Power": 5000.0, "Other Party": 5000.0}
    drive(busy, 3, crowd, begin=8 * S, seed=1)
    found = drive(busy, 5, crowd, begin=11 * S, seed=2)
    admitted = found[..., 1:].sum(axis=(0, 2))[1:] / 5
    assert admitted.sum() == pytest.approx(1000, rel=0.02)
    assert (admitted >= np.array([400, 200, 20])).all()
    assert admitted == pytest.approx(np.array([400, 200, 20]) * 1000 / 620, rel=0.1), "by weight"


def test_f4_a_user_within_its_allocation_is_not_throttled() -> None:
    busy = mechanism()
    rates = {"Avon Power": 50_000.0, "Northern Energy": 399.0, "Other Party": 19.5, "unheard of": 9000.0}
    found = drive(busy, 10, rates)
    assert busy.snapshot().active
    for name in ("Northern Energy", "Other Party"):
        assert found[:, busy.user(name), Decision.THROTTLED].sum() == 0


def test_f5_a_list_kept_outside_is_never_throttled_and_reloaded_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "tmm.toml").write_text(
        "[capacity]\nsystem_capacity = 1500\noperating_threshold = 1000\n"
        '[files]\nallocations = "allocations.csv"\npriority_list = "priority-list.toml"\n',
        encoding="utf-8",
    )
    (tmp_path / "allocations.csv").write_text(
        "user,category,user_ids,allocation\nNorthern Energy,large-supplier,,400\n", encoding="utf-8"
    )
    paper = 'version = "{}"\neffective_from = 2026-12-01\napproved_by = "SEC Panel"\nsrvs = ["{}"]\n'
    listed = tmp_path / "priority-list.toml"
    listed.write_text(paper.format("2026-12", "7.4"), encoding="utf-8")
    opened = Mechanism.open(tmp_path / "tmm.toml", start=0)
    assert PriorityList.load(listed).approved_by == "SEC Panel"
    found = drive(opened, 2, {"Northern Energy": 9000.0}, srv="7.4")
    assert found[..., Decision.PRIORITY].sum() == found.sum()
    listed.write_text(paper.format("2027-01", "4.1.1"), encoding="utf-8")
    opened.apply(Config.load(tmp_path / "tmm.toml"), now=2 * S)
    user = opened.user("Northern Energy")
    assert opened.admit_at(user, opened.srv("4.1.1"), 2 * S) is Decision.PRIORITY
    assert opened.admit_at(user, opened.srv("7.4"), 2 * S) is not Decision.PRIORITY


def test_f6_a_list_by_the_criteria_discussed_is_accepted_and_its_shape_checked() -> None:
    """Prepayment and supply status yes; install, commission and decommission no; each an SRV that exists."""
    listed = PriorityList(["1.5", "1.6", "2.1", "2.2", "2.3", "2.5", "4.3", "7.4"])
    busy = Mechanism(Config(1500, 1000, allocations=ALLOCATIONS, priority=listed), start=0)
    assert {"2.2", "7.4"} <= busy.config.priority_srvs
    assert not {"8.1.1", "8.11"} & busy.config.priority_srvs
    with pytest.raises(ConfigError, match="99"):
        PriorityList(["99.1"])


def test_f7_allocations_come_from_a_formula_and_other_parties_are_sure_of_some() -> None:
    """Expected Service Requests, prepayment included, measured against the portfolio of meters and Devices."""
    rates = dict.fromkeys(METER_KINDS, 1)
    parameters = Parameters(
        version="example", system_capacity=Fraction(1500), operating_threshold=Fraction(1000),
        priority_share=Fraction(1, 10), unknown_allocation=Fraction(10),
        requests_per_day={each: {kind: Fraction(rate) for kind, rate in rates.items()} for each in CATEGORIES},
        prepayment_weight=Fraction(3), busy_hour_factor=dict.fromkeys(CATEGORIES, Fraction(2)),
        guaranteed_minimum=Fraction(20), minimum=Fraction(1), blend=(Fraction(1), Fraction(0), Fraction(0)),
    )  # fmt: skip
    users = (
        UserPortfolio("Large", "large-supplier", electricity_credit=2_000_000),
        UserPortfolio("Prepaid", "large-supplier", electricity_prepayment=2_000_000),
        UserPortfolio("Another", "other"),
    )
    found = {each.user: each.allocation for each in allocate(Portfolio("2026-12", users), parameters).users}
    assert found["Prepaid"] > 2 * found["Large"], "prepayment requests count more, as they were told to"
    assert found["Another"] == 20, "an Other SEC Party is sure of the guaranteed minimum"
    assert sum(found.values()) <= 1000, "what is promised fits under the operating threshold"


def test_f8_a_monthly_version_is_applied_whole_and_buckets_go_on() -> None:
    busy = mechanism(sharing="none", hold_s=3600)
    drive(busy, 1, {"unheard of": 9000.0})
    user = busy.user("Other Party")
    while busy.admit_at(user, 0, S):
        pass
    before = busy.snapshot(S).version
    busy.apply(Config(1500, 1000, allocations={**ALLOCATIONS, "Other Party": 5.0}, sharing="none"), now=S)
    assert busy.snapshot(S).version != before
    admitted = sum(bool(busy.admit_at(user, 0, S + turn * 10**7)) for turn in range(1000))
    assert admitted in range(49, 52), "ten seconds at five units a second, and no fresh burst"


def test_f9_a_throttled_request_is_to_be_retried_at_an_exact_time() -> None:
    busy = mechanism(sharing="none", hold_s=3600)
    drive(busy, 1, {"unheard of": 9000.0})
    user, now = busy.user("Other Party"), S
    while decision := busy.admit_at(user, 0, now):
        pass
    assert decision is Decision.THROTTLED
    assert not decision
    assert (
        busy.admit_at(user, 0, now + int(busy.retry_after(user, now=now) * 1e9)) is Decision.WITHIN_ALLOCATION
    )


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "requirements.md").read_text("utf-8")
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| F")
    ]


def test_the_map_has_a_row_for_every_requirement() -> None:
    assert [row[0] for row in rows()] == [f"F{number}" for number in (*range(1, 14), 15)]


def test_every_test_and_module_in_the_map_exists() -> None:
    for row in rows():
        for module in re.findall(r"`([\w/]+\.(?:py|pxd))`", row[2]):
            assert (ROOT / "src" / "tmm_core" / module).exists() or "(planned)" in row[2], module
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row[3])
        assert named or "(planned)" in row[3], row
        for file, test in named:
            text = (ROOT / file).read_text("utf-8")
            assert not test or f"def {test}(" in text, (row[0], file, test)
