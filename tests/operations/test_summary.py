"""The summary says what is so: a small one in full, and its JSON."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tmm_core.mechanism import Mechanism
from tmm_core.operations.terminal import Paint
from tmm_core.operations.traffic.drive import Drive, Outcome, TrafficSecond
from tmm_core.operations.traffic.summary import summary, summary_lines
from tmm_core.policy.config import Config

CONFIG = Config(
    150, 100, allocations={"Alpha": 60.0, "Beta": 20.0}, priority=["7.4"], unknown_allocation=10.0, hold_s=2
)


def outcome(plan: list[tuple[int, str, str, int]], config: Config = CONFIG) -> Outcome:
    """Play (second, user, SRV, how many), all at the beginning of the second."""
    with Mechanism(config, start=0) as mechanism:
        drive = Drive(mechanism)
        for number, user, srv, n in plan:
            users = np.full(n, mechanism.user(user), np.uint32)
            srvs = np.full(n, mechanism.srv(srv), np.uint16)
            drive.feed(TrafficSecond(number, users, srvs, np.zeros(n, np.int64)))
        return drive.finish()


def lines(found: Outcome, config: Config = CONFIG, **more: bool) -> list[str]:
    return list(summary_lines(found, config, Paint(), lambda second: f"{second:.1f} s", **more))


# Second 0: Beta, 21 within its allocation (20 and the one at the edge), and more while inactive.
PLAN = [
    (0, "Beta", "4.1.1", 200),
    (1, "Alpha", "4.1.1", 10),
    (1, "Alpha", "7.4", 5),
    (1, "nobody", "99.9", 4),
]

GOLDEN = """\
Service Requests by outcome
  Service User  allocation/s  offered  priority  within  spare  throttled
  Beta                    20      200         0      21      5        174  87.0 %
  Alpha                   60       15         5      10      0          0   0.0 %
  (unknown)               10        4         0       4      0          0   0.0 %
  all                     90      219         5      35      5        174  79.5 %
  priority: on the priority list; within: inside the allocation; spare: above it, admitted

Traffic management events: 1
  began      active for  highest/s offered  admitted  throttled
  0.0 s  2 s (not over)                200        19        174

Load in Service Requests per second: threshold 100, capacity 150
                      highest second  of capacity  above threshold  above capacity  backlog  longest wait
  with the Mechanism              26       17.3 %              0 s             0 s        0           0 s
  without it                     200      133.3 %              1 s             1 s       50         0.3 s
  While the Mechanism was active, the highest admitted second was 19: 19.0 % of the operating threshold. The highest
  of all, 26 at 0.0 s, came before or as it became active.
  Without the Mechanism a DSP of this capacity would have been 50 Service Requests behind at 0.0 s: a wait of 0.3 s
  for every User's requests, urgent ones too. It would have had a backlog for 1 s."""


def test_a_small_summary_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "116")
    assert "\n".join(lines(outcome(PLAN))) == GOLDEN


def test_the_figures_for_programs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome(PLAN)
    figures = json.loads(json.dumps(summary(found, CONFIG), allow_nan=False))
    assert figures["service_requests"] == figures["offered"] == 219
    assert figures["admitted"] + figures["throttled"] == 219
    assert (
        figures["priority"] + figures["within_allocation"] + figures["spare_capacity"] == figures["admitted"]
    )
    assert figures["unknown_users"] == figures["unknown_srvs"] == 4
    assert figures["activations"] == 1
    assert [user["user"] for user in figures["users"]] == ["(unknown)", "Alpha", "Beta"]
    assert sum(user["throttled"] for user in figures["users"]) == figures["throttled"]
    assert figures["without_mechanism"]["highest_second"] == 200
    # 200 offered to a DSP of 150 a second: 50 waiting, a third of a second.
    assert figures["without_mechanism"]["longest_wait_s"] == pytest.approx(50 / 150)
    assert figures["configuration"]["version"] == CONFIG.version


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_summary_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(map(len, lines(outcome(PLAN)))) <= columns
    found = outcome(PLAN)
    found.counts[:] *= 12_345_678  # hundreds of millions
    assert max(map(len, lines(found))) <= columns
    head = lines(found)[1]
    assert "offered" in head and "throttled" in head


def test_a_calm_day_says_that_nothing_was_throttled() -> None:
    said = "\n".join(lines(outcome([(0, "Alpha", "4.1.1", 3)])))
    assert "The Mechanism was never active: nothing was throttled." in said
    assert "would have kept up" in said


def test_an_event_that_is_not_over_says_so() -> None:
    said = "\n".join(lines(outcome([(0, "Beta", "4.1.1", 200)])))
    assert "(not over)" in said


def test_only_the_users_that_matter_are_listed_unless_all_are_asked_for() -> None:
    config = Config(150, 100, allocations={f"User {number:02d}": 1.0 for number in range(40)})
    found = outcome([(0, "User 07", "4.1.1", 9)], config)
    short, long = lines(found, config), lines(found, config, all_users=True)
    assert any(re.match(r"  28 other Users", line) for line in short)
    assert sum("User " in line for line in long) >= 40
    assert short[2].startswith("  User 07")


def test_units_are_named_where_service_requests_cost_different_amounts() -> None:
    config = Config(150, 100, allocations={"Alpha": 60.0}, costs={"4.8.1": 5})
    said = "\n".join(lines(outcome([(0, "Alpha", "4.8.1", 2)], config), config))
    assert "Load in units per second: threshold 100, capacity 150" in said


def test_a_users_name_cannot_write_to_the_screen() -> None:
    # Config refuses such a name; the summary does not rely on it.
    found = outcome([(0, "Alpha", "4.1.1", 3)])
    found.users[1] = "Al\x1b[2Jpha"
    said = "\n".join(lines(found))
    assert "\x1b" not in said and "Al\\u001b[2Jpha" in said
