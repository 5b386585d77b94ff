"""The simulator: scenarios, arrivals, clients, policies and the promises it checks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tmm_core import Decision, Mechanism
from tmm_core.errors import ConfigError, TMMError
from tmm_core.operations.cli import main
from tmm_core.operations.simulate import Simulation, simulate
from tmm_core.operations.simulation import srvs_of, users_of
from tmm_core.operations.simulation.arrivals import Arrivals
from tmm_core.operations.simulation.models import Clients
from tmm_core.operations.simulation.promises import Audit, checks
from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.simulation.scenario import POLICIES, Change, Client, Scenario
from tmm_core.operations.simulation.scenario_files import load_scenario, shipped_scenarios
from tmm_core.operations.simulation.summary import figures_csv, finding, lines, seconds_csv, summary
from tmm_core.operations.terminal import Paint

from .shared_out import shares_of

SMALL = """\
title = "Small"
seconds = 40
step_ms = 20
[capacity]
system_capacity = 250
operating_threshold = 200
unknown_allocation = 1
[dsp]
timeout_s = 5
queue_s = 12
restart_s = 10
[clients.polite]
kind = "retry-after"
[clients.stubborn]
kind = "fixed"
base_s = 2
attempts = 10
[[users]]
name = "Calm"
category = "other"
allocation = 40
client = "polite"
[[users]]
name = "Flood"
count = 2
category = "large-supplier"
allocation = 100
shares = [3, 1]
client = "stubborn"
[[traffic]]
users = ["Calm"]
kind = "steady"
rate = 30
mix = "other"
[[traffic]]
users = ["Flood *"]
kind = "burst"
rate = 500
at_s = 3
lasts_s = 15
"""


@pytest.fixture
def small(tmp_path: Path) -> Scenario:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return load_scenario(str(path))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """All policies, once."""
    path = tmp_path_factory.mktemp("compared") / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return simulate(load_scenario(str(path)))


def run(scenario: Scenario, *policies: str) -> Simulation:
    return simulate(scenario, policies or None)


def result(simulation: Simulation, policy: str) -> PolicyResult:
    found = simulation.of(policy)
    assert found is not None
    return found


# --- scenarios


def test_every_shipped_scenario_reads_and_names_what_motivates_it() -> None:
    names = list(shipped_scenarios())
    assert len(names) == 11
    for name in names:
        scenario = load_scenario(name)
        assert scenario.title
        assert scenario.about
        assert scenario.source
        assert len(scenario.users) == 52
        assert sum(scenario.config.allocations.values()) == pytest.approx(15_950)
        assert set(scenario.policies) <= set(POLICIES)


def test_all_mistakes_of_a_scenario_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    wrong = SMALL.replace("seconds = 40", "seconds = 0").replace('kind = "fixed"', 'kind = "fixd"')
    wrong = wrong.replace("rate = 30", "raet = 30").replace('["Flood *"]', '["Flod *"]')
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_scenario(str(path))
    text = str(caught.value)
    lines = {each.line for each in caught.value.mistakes}
    assert {2, wrong.splitlines().index('kind = "fixd"') + 1} <= lines
    for word in ("seconds 0 must be a number from 1 to", "'fixd'", "raet", "Flod"):
        assert word in text


def test_the_scenario_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
    (tmp_path / "page.toml").write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    scenario = load_scenario(str(tmp_path / "page.toml"))
    allocations = scenario.config.allocations
    assert allocations == {"Supplier 01": 75, "Supplier 02": 45, "Supplier 03": 30}, "150 as 5, 3 and 2"
    assert (scenario.seconds, scenario.users[0].client.name, scenario.faults[0].kind) == (
        120,
        "polite",
        "outage",
    )


def test_a_base_lends_its_users_and_its_traffic_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(SMALL, encoding="utf-8")
    more = '[[traffic]]\nusers = ["Calm"]\nkind = "steady"\nrate = 5\n'
    found = []
    for line in ("", "base_traffic = true\n", "base_traffic = false\n", "base_traffic = 0\n"):
        path = tmp_path / "mine.toml"
        path.write_text('base = "base.toml"\n' + line + more, encoding="utf-8")
        if line.endswith("0\n"):
            with pytest.raises(ConfigError, match=r"mine\.toml:2:16: base_traffic 0 must be true or false"):
                load_scenario(str(path))
            continue
        scenario = load_scenario(str(path))
        assert len(scenario.users) == 3
        found.append([each.rate for each in scenario.traffic])
    assert found == [[30, 500, 5], [30, 500, 5], [5]]


def test_a_scenario_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(TMMError, match="beast-from-the-east"):
        load_scenario("beast-from-the-eest")


# --- arrivals


def fresh_of(scenario: Scenario, seconds: int) -> np.ndarray:  # type: ignore[type-arg]
    with Mechanism(scenario.config, start=0) as mechanism:
        arrivals = Arrivals(scenario, mechanism.user, mechanism.srv)
        return np.concatenate([arrivals.seconds(second).in_time(0).words for second in range(seconds)])


def test_the_same_seed_gives_the_same_requests_and_another_seed_others(small: Scenario) -> None:
    first = fresh_of(small, 10)
    assert np.array_equal(first, fresh_of(small, 10))
    assert not np.array_equal(first, fresh_of(replace(small, seed=2), 10))


def test_a_users_traffic_does_not_change_when_another_user_goes(small: Scenario) -> None:
    calm = small.config.users.index("Calm") + 1
    alone = replace(small, traffic=small.traffic[:1])
    both, one = fresh_of(small, 10), fresh_of(alone, 10)
    assert np.array_equal(both[users_of(both) == calm], one)


def test_rates_and_shares_are_those_of_the_scenario(small: Scenario) -> None:
    words = fresh_of(small, 30)
    counts = np.bincount(users_of(words), minlength=4)
    # Calm: 30 a second for 30 s; Flood: 500 a second for 15 s, split by portfolio as 3 to 1.
    assert counts[0] == 0
    assert counts[1:].tolist() == pytest.approx([900, 5625, 1875], rel=0.05)
    with Mechanism(small.config, start=0) as mechanism:
        assert set(srvs_of(words[users_of(words) == 1]).tolist()) <= {
            mechanism.srv(code) for code in small.mixes["other"]
        }


@pytest.mark.parametrize("kind", ["on-off", "mmpp"])
def test_a_rate_that_jumps_has_the_mean_of_its_factors(small: Scenario, kind: str) -> None:
    traffic = replace(small.traffic[0], kind=kind, factors=(0.0, 2.0), dwell_s=(5.0, 5.0), rate=100)
    words = fresh_of(replace(small, traffic=(traffic,)), 2000)
    by_second = np.bincount(words >> 28, minlength=100_000).reshape(-1, 50).sum(axis=1)
    assert by_second.mean() == pytest.approx(100, rel=0.15)
    assert 0.4 < (by_second == 0).mean() < 0.6


# --- clients

WORD = 1 << 16  # slot 1, born in step 0, no attempt yet failed


def attempts_at(client: Client, retry_after_s: float | None = None, *, until: int = 100_000) -> list[int]:
    """Let every attempt fail; return the steps (10 ms) of all of them."""
    clients = Clients([client, client], 0.01, seed=1)
    steps, words = [], np.array([WORD], dtype=np.int64)
    for step in range(until):
        again = clients.due(step)
        if step == 0:
            again = words
        if again.size:
            steps.append(step)
            said = None if retry_after_s is None else np.full(again.size, retry_after_s)
            if clients.failed(again, step, said).size:
                break
    assert clients.waiting == 0
    return steps


def test_clients_send_again_as_they_are_told_to() -> None:
    assert attempts_at(Client("c", "no-retry", attempts=9)) == [0]
    assert attempts_at(Client("c", "fixed", base_s=2, attempts=3)) == [0, 200, 400]
    # 1, 2, 4, then the cap of 5 s, without jitter.
    backoff = Client("c", "exponential", base_s=1, cap_s=5, jitter=0, attempts=6)
    assert attempts_at(backoff) == [0, 100, 300, 700, 1200, 1700]
    assert attempts_at(backoff, 30.0) == [0, 100, 300, 700, 1200, 1700], "it does not read the answer"
    polite = replace(backoff, kind="retry-after", attempts=3)
    assert attempts_at(polite, 7.5) == [0, 750, 1500]
    assert attempts_at(polite) == [0, 100, 300], "and backs off where the answer does not say"
    hostile = Client("c", "hostile", base_s=0.05, attempts=4)
    assert attempts_at(hostile, 30.0) == [0, 5, 10, 15]


def test_nothing_is_sent_again_after_the_senders_patience() -> None:
    assert attempts_at(Client("c", "fixed", base_s=2, attempts=200, patience_s=5)) == [0, 200, 400]


def test_jitter_spreads_what_failed_together() -> None:
    clients = Clients([Client("c", "exponential", base_s=10, jitter=0.5)] * 2, 0.01, seed=1)
    clients.due(0)
    assert not clients.failed(np.full(1000, WORD, dtype=np.int64), 0).size
    by_step = [clients.due(step).size for step in range(1, 1101)]
    assert sum(by_step) == 1000
    assert sum(by_step[:499]) == 0
    assert sum(by_step[499:750]) == pytest.approx(500, abs=80)
    assert max(by_step) < 20


# --- policies


def test_the_mechanism_protects_what_is_inside_and_nothing_else_does(compared: Simulation) -> None:
    simulation = compared
    none, network, fair = (result(simulation, name) for name in ("none", "network-503", "fair"))
    assert none.outage_s > 0
    assert none.failures >= 1
    assert network.refused(Decision.WITHIN_ALLOCATION) > 0, "a 503 to everybody"
    assert (network.outage_s, fair.outage_s) == (0, 0)
    assert fair.refused(Decision.WITHIN_ALLOCATION) == fair.refused(Decision.PRIORITY) == 0
    assert fair.refused(Decision.THROTTLED) > 0
    assert simulation.inside == ["Calm"]
    calm = fair.users.index("Calm")
    assert fair.fresh[calm] == fair.answered[calm] > 0
    assert none.answered[calm] < none.fresh[calm]
    assert fair.goodput > 1.5 * none.goodput
    hard, alternative = result(simulation, "hard"), result(simulation, "alternative")
    assert hard.highest < fair.highest * 1.05
    assert hard.use is not None
    assert fair.use is not None
    assert hard.use < fair.use, "hard allocations leave the rest of the threshold unused"
    assert alternative.attempts_per_request < fair.attempts_per_request
    assert max(row.holding for row in alternative.rows) > 0
    assert "stays up" in finding(simulation)


def test_every_request_is_answered_given_up_or_open(small: Scenario, compared: Simulation) -> None:
    for each in (*compared.results, *run(replace(small, seconds=12)).results):
        assert each.requests == each.answered_total + each.lost_total + each.open
    assert each.open > 0, "ended in the middle"


def test_what_the_mechanism_promises_holds_under_each_sharing_rule(compared: Simulation) -> None:
    for name in ("hard", "first-come", "fair"):
        found = checks(result(compared, name))
        assert {check.name for check in found} >= {"P1", "P2", "P3", "P4", "P7"}
        assert [check for check in found if check.holds is False and check.name != "P6"] == []


def test_the_checks_can_fail(small: Scenario) -> None:
    """Decisions nobody may make are given to the reference, and figures nobody may find to the checks."""
    priority = np.zeros(200, dtype=bool)
    priority[7] = True
    audit = Audit(small.config, 4, None, priority)
    # Both are refused to the first User, whose bucket is at rest; the second is on the priority list.
    counts = np.zeros((1, 4, 4), dtype=np.int64)
    counts[0, 1, Decision.THROTTLED] = 2
    audit.steps(counts, counts, np.array([0.0]))
    audit.throttled(np.array([3, 7], dtype=np.uint16))
    found = audit.found
    assert (found.within_throttled, found.priority_throttled) == (2, 1)
    counts[:] = 0
    counts[0, 2, Decision.SPARE_CAPACITY] = 1500
    audit.steps(counts, counts, np.array([0.01]))
    assert audit.found.excess == 1500 > audit.found.bound
    broken = result(run(replace(small, seconds=12), "fair"), "fair")
    broken.audit, broken.activations = audit.found, broken.activations * 3
    broken.throttled_while_inactive = 1
    broken.shares = shares_of(10, {"A": (150, 900), "B": (150, 900), "C": (100, 200)})
    for row in broken.rows:
        row.through *= 0.5
    assert [check.name for check in checks(broken) if check.holds is False] == [f"P{n}" for n in range(1, 8)]


def test_new_allocations_come_into_force_in_the_middle(compared: Simulation, tmp_path: Path) -> None:
    text = SMALL + '[[changes]]\nat_s = 8\nusers = ["Flood 01"]\nfactor = 0.2\n'
    (tmp_path / "change.toml").write_text(text, encoding="utf-8")
    changed = result(run(load_scenario(str(tmp_path / "change.toml")), "hard"), "hard")
    before = result(compared, "hard")
    assert all(check.holds is not False for check in checks(changed))
    within = Decision.WITHIN_ALLOCATION
    assert changed.table[2, within].sum() < 0.8 * before.table[2, within].sum()


def test_a_change_within_a_second_is_checked_from_then_on(small: Scenario) -> None:
    """Half as much again at 8.5 s: judged by it, the refusals before would be breaches of P1."""
    changed = replace(small, seconds=12, changes=(Change(8.5, ("Flood 01",), 1.5),))
    for scenario in (changed, changed.without_clients()):
        (found,) = run(scenario, "hard").results
        assert found.refused(Decision.THROTTLED) > 0
        assert found.audit is not None
        assert found.audit.within_throttled == 0


@pytest.mark.parametrize(("activation_s", "most"), [(0.25, 25), (0.1, 10)])
def test_a_step_in_which_the_mechanism_would_have_to_brake_is_refused(
    tmp_path: Path, activation_s: float, most: int
) -> None:
    """All of a step come at one instant: spare capacity ends at a backlog of a fifth of activation_s."""
    path = tmp_path / "steps.toml"
    for step_ms, taken in ((10, True), (25, most == 25), (50, False), (100, False)):
        text = SMALL.replace("step_ms = 20", f"step_ms = {step_ms}")
        path.write_text(f"{text}[mechanism]\nactivation_s = {activation_s}\n", encoding="utf-8")
        if taken:
            assert load_scenario(str(path)).step_ms == step_ms
            continue
        with pytest.raises(
            ConfigError, match=rf"steps\.toml:3:11: step_ms {step_ms} must be at most {most}, a tenth"
        ):
            load_scenario(str(path))


# --- figures


def test_the_same_scenario_gives_the_same_bytes(small: Scenario, compared: Simulation) -> None:
    first, second = compared, run(small)
    assert figures_csv(first) == figures_csv(second)
    assert seconds_csv(first) == seconds_csv(second)
    assert json.dumps(summary(first)) == json.dumps(summary(second))


def test_a_scaled_scenario_is_the_same_at_another_size(small: Scenario) -> None:
    double = small.scaled(2)
    assert double.config.operating_threshold == 400
    assert fresh_of(double, 20).size == pytest.approx(2 * fresh_of(small, 20).size, rel=0.03)


# --- the command


def test_the_command_writes_its_files_and_says_what_it_found(
    small: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "out"
    command = ["simulate", str(tmp_path / "small.toml"), "--policies", "none,fair", "-o", str(out)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "outage of the DSP" in shown
    assert "P1 holds" in shown
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    names = ["simulation.html", "simulation.json", "figures.csv", "seconds.csv", "users.csv"]
    first = {name: (out / name).read_bytes() for name in names}
    assert main([*command, "--quiet"]) == 0
    assert {name: (out / name).read_bytes() for name in names} == first, "the same bytes"
    page = first["simulation.html"].decode()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert main([*command, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["policies"]) == {"none", "fair"}


def test_two_scenarios_are_compared(
    small: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        SMALL.replace("operating_threshold = 200", "operating_threshold = 180"), encoding="utf-8"
    )
    command = ["simulate", "--compare", str(tmp_path / "small.toml"), str(other), "--policies", "fair"]
    assert main([*command, "-o", str(tmp_path / "out"), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert second["policies"]["fair"]["refused_above"] > first["policies"]["fair"]["refused_above"]


@pytest.mark.parametrize("width", [80, 120])
def test_what_differs_between_two_scenarios_is_side_by_side(
    width: int, small: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(width))
    other = tmp_path / "other.toml"
    lower = SMALL.replace("operating_threshold = 200", "operating_threshold = 180")
    other.write_text(
        lower.replace("seconds = 40", 'seconds = 40\npolicies = ["none", "fair"]'), encoding="utf-8"
    )
    out = str(tmp_path / "out")
    assert main(["simulate", "--compare", str(tmp_path / "small.toml"), str(other), "-o", out]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines() if "/" not in line) <= width
    words = " ".join(said.split())
    assert "small: Small" in words and "other: Small" in words
    assert "no protection: all figures are the same." in words, "the threshold means nothing to it"
    assert "Only in small: the network's 503 to everybody, hard allocations," in words
    figures = json.loads((tmp_path / "out" / "1-simulation.json").read_text(encoding="utf-8"))["policies"][
        "fair"
    ]
    then = json.loads((tmp_path / "out" / "2-simulation.json").read_text(encoding="utf-8"))["policies"][
        "fair"
    ]
    one, two = figures["refused_above"], then["refused_above"]
    row = next(line.split() for line in said.splitlines() if line.startswith("  refused above allocation"))
    assert row[3:] == [f"{one:,}", f"{two:,}", f"+{two - one:,}"]
    pytest.importorskip("jinja2")
    page = (tmp_path / "out" / "simulation.html").read_text(encoding="utf-8")
    section = page[page.index("Side by side</h2>") :]
    cells = re.search(r"refused above allocation</t.>((\s*<td[^>]*>[^<]*</td>)+)", section)
    assert cells is not None and re.findall(r">([^<\s]+)<", cells[1]) == row[3:]
    assert "<p>All figures are the same.</p>" in section and "<p>Only in small: the network" in section
    assert "None in either: outage of the DSP; refused inside allocation; priority refused" in words


def test_policies_are_spread_evenly_over_as_few_tables_as_fit(
    compared: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {}
    for width in (40, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        heads = [
            line.split()
            for line in lines(compared, Paint())
            if line.split()[-1:] and line.split()[-1] in POLICIES
        ]
        tables[width] = [len(head) for head in heads]
    assert tables == {40: [1] * 6, 80: [3, 3], 200: [6]}


def test_a_folder_that_cannot_be_is_told_before_anything_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "small.toml").write_text(SMALL, encoding="utf-8")
    monkeypatch.setattr("tmm_core.operations.simulate.simulate", None)
    assert main(["simulate", str(tmp_path / "small.toml"), "-o", str(tmp_path / "file")]) == 1
    assert "file: File exists" in capsys.readouterr().err


def test_a_wrong_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate"]) == 2
    assert main(["simulate", "x", "--policies", "fare"]) == 2
    assert main(["simulate", "no-such-scenario"]) == 1
    assert main(["simulate", "--list"]) == 0
    assert "The Beast from the East" in capsys.readouterr().out
