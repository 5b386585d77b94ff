"""Metrics: what the engine counted, in names and labels from closed sets, as Prometheus and OpenTelemetry want them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tmm_core.gateway.desk import Counts
from tmm_core.operations.metrics import FAMILIES, Collector, instrument, samples

from .conftest import MakeWorld
from .world import NORTH, SOUTH, World, small_config

CONTRIB = Path(__file__).parents[2] / "contrib"
DASHBOARD = CONTRIB / "grafana" / "tmm-dashboard.json"
ALERTS = CONTRIB / "prometheus" / "tmm-alerts.yml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian package prometheus)"
)


def busy(world: World) -> Any:
    watcher = world.watch()
    world.overload(5, watcher)
    world.traffic(1, {("nobody", "9.9"): 30.0, (SOUTH, "7.4"): 5.0}, watcher)
    return watcher


def by_labels(world: World, **options: Any) -> dict[str, dict[tuple[str, ...], float]]:
    return {
        family.name: {sample.labels: sample.value for sample in found}
        for family, found in samples(world.mechanism, **options)
    }


def test_the_values_are_the_engines(world: World) -> None:
    desk = SimpleNamespace(counts=Counts(fail_open=3, identity_disagrees=4, identity_ambiguous=1))
    found = by_labels(world, watcher=busy(world), desks=[desk])
    snapshot = world.mechanism.snapshot(world.now)
    assert set(found) == set(FAMILIES), "every metric that is named is there"
    assert sum(found["tmm_requests_total"].values()) == snapshot.counts.sum()
    assert sum(found["tmm_srv_requests_total"].values()) == snapshot.counts.sum()
    assert sum(found["tmm_units_total"].values()) == world.mechanism.engine.units().sum()
    north = snapshot.counts[world.mechanism.user(NORTH)].sum(axis=0).tolist()
    decisions = ("throttled", "spare_capacity", "within_allocation", "priority")
    assert [found["tmm_requests_total"][NORTH, decision] for decision in decisions] == north
    assert found["tmm_active"] == {(): 1.0} and found["tmm_activations_total"] == {(): 1.0}
    assert found["tmm_allocation"] == {(NORTH,): 30.0, (SOUTH,): 20.0, ("(unknown)",): 10.0}
    assert (found["tmm_fail_open_total"], found["tmm_identity_mismatches_total"]) == ({(): 3.0}, {(): 5.0})
    assert (found["tmm_event_log_failures"], found["tmm_event_log_writer"]) == ({(): 0.0}, {(): 1.0})


def test_names_from_outside_make_no_series(world: World) -> None:
    def series() -> int:
        return sum(len(found) for _, found in samples(world.mechanism))

    world.traffic(0.1, {("nobody", "9.9"): 100.0})
    before = series()
    world.traffic(0.1, {(f"nobody {n}", f"{n}.x"): 100.0 for n in range(2000)})
    assert series() == before


def test_counters_of_a_known_user_are_there_before_its_first_request(world: World) -> None:
    found = by_labels(world)
    assert found["tmm_requests_total"][NORTH, "throttled"] == 0


def exposition(world: World, **options: Any) -> str:
    prometheus = pytest.importorskip("prometheus_client", reason="the extra 'prometheus' is not installed")
    registry = prometheus.CollectorRegistry()
    registry.register(Collector(world.mechanism, **options))
    text: str = prometheus.generate_latest(registry).decode()
    return text


def test_prometheus_gets_every_metric_by_its_name(world: World) -> None:
    text = exposition(world, watcher=busy(world))
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert types == {family.name: family.kind for family in FAMILIES.values()}
    throttled = int(world.mechanism.snapshot(world.now).counts[:, :, 0].sum())
    assert f'tmm_requests_total{{decision="throttled",user="{NORTH}"}} {float(throttled)}' in text or (
        f'tmm_requests_total{{user="{NORTH}",decision="throttled"}} {float(throttled)}' in text
    )


def test_a_name_that_would_do_harm_is_escaped(make_world: MakeWorld) -> None:
    world = make_world(config=small_config(allocations={'a"} 1\\': 10.0}))
    assert 'user="a\\"} 1\\\\"' in exposition(world)


@needs_promtool
def test_promtool_accepts_the_exposition(world: World) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=exposition(world, watcher=busy(world)), text=True,
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_promtool
def test_promtool_finds_fault_with_a_bad_exposition() -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input="# TYPE tmm_requests counter\ntmm_requests 1\n", text=True,
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0


@needs_promtool
def test_promtool_accepts_the_alert_rules() -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(ALERTS)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """promtool plays series through the rules: quiet, then active, near the threshold, without a decision."""
    assert PROMTOOL is not None
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": 'tmm_active{job="tmm"}', "values": "0x9 1x50"},
                    {"series": 'tmm_load{job="tmm"}', "values": "95x60"},
                    {"series": 'tmm_operating_threshold{job="tmm"}', "values": "100x60"},
                    {"series": 'tmm_fail_open_total{job="tmm"}', "values": "0x40 5x20"},
                ],
                "alert_rule_test": [
                    {"eval_time": "3m", "alertname": "TmmActive", "exp_alerts": []},
                    {"eval_time": "12m", "alertname": "TmmActive", "exp_alerts": [_alert("TmmActive")]},
                    {"eval_time": "20m", "alertname": "TmmActiveForLong", "exp_alerts": []},
                    {
                        "eval_time": "45m",
                        "alertname": "TmmActiveForLong",
                        "exp_alerts": [_alert("TmmActiveForLong")],
                    },
                    {
                        "eval_time": "7m",
                        "alertname": "TmmNearThreshold",
                        "exp_alerts": [_alert("TmmNearThreshold")],
                    },
                    {"eval_time": "39m", "alertname": "TmmFailOpen", "exp_alerts": []},
                    {"eval_time": "43m", "alertname": "TmmFailOpen", "exp_alerts": [_alert("TmmFailOpen")]},
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test))  # JSON is YAML
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _alert(name: str) -> dict[str, Any]:
    rules = pytest.importorskip("yaml").safe_load(ALERTS.read_text())["groups"][0]["rules"]
    rule = next(rule for rule in rules if rule["alert"] == name)
    return {"exp_labels": {"job": "tmm", **rule["labels"]}, "exp_annotations": rule["annotations"]}


def used_metrics() -> dict[str, set[str]]:
    """Metric names in the expressions of dashboard and alerts, each with where."""
    yaml = pytest.importorskip("yaml")
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    where = [(target["expr"], panel["title"]) for panel in dashboard["panels"] for target in panel["targets"]]
    where += [(each["expr"], each["name"]) for each in dashboard["annotations"]["list"]]
    where += [
        (each["query"]["query"], each["name"])
        for each in dashboard["templating"]["list"]
        if each["type"] == "query"
    ]
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    where += [(rule["expr"], rule["alert"]) for rule in rules]
    found: dict[str, set[str]] = {}
    for expression, place in where:
        for name in re.findall(r"\btmm_\w+", expression):
            found.setdefault(name, set()).add(place)
    return found


def test_dashboard_and_alerts_use_only_metrics_that_exist() -> None:
    used = used_metrics()
    assert {name: places for name, places in used.items() if name not in FAMILIES} == {}
    assert len(used) > 12
    labels = {label for family in FAMILIES.values() for label in family.labels} | {"job"}
    text = DASHBOARD.read_text(encoding="utf-8") + ALERTS.read_text(encoding="utf-8")
    assert set(re.findall(r"\bby \(([a-z, ]+)\)", text)) <= {
        "user",
        "srv",
        "decision",
        "job",
        "version, mode",
        "job, version",
    }
    assert set(re.findall(r'(\w+)!?=\\?"(?:throttled|priority)', text)) <= labels


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_opentelemetry_gets_the_same_values(world: World) -> None:
    metrics = pytest.importorskip(
        "opentelemetry.sdk.metrics", reason="the SDK of OpenTelemetry is not installed"
    )
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    watcher = busy(world)
    reader = export.InMemoryMetricReader()
    provider = metrics.MeterProvider(metric_readers=[reader])
    try:
        made = instrument(world.mechanism, provider.get_meter("tmm"), watcher=watcher)
        assert len(made) == len(FAMILIES)
        for _ in range(2):
            data = reader.get_metrics_data()
            (scope,) = data.resource_metrics[0].scope_metrics
            values = {
                metric.name: {
                    tuple(point.attributes.values()): point.value for point in metric.data.data_points
                }
                for metric in scope.metrics
            }
            expected = {
                name.removesuffix("_total").replace("_", ".", 1): found
                for name, found in by_labels(world, watcher=watcher).items()
            }
            assert values == {name: found for name, found in expected.items() if found}
            world.overload(1, watcher)
    finally:
        provider.shutdown()
