"""The rules, the alerts and the dashboard of ``monitoring/``: sound, and about metrics that there are."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from packetfs_compute import metrics
from packetfs_compute.gateway import lending

MONITORING = Path(__file__).parents[2] / "monitoring"
PROMETHEUS = MONITORING / "prometheus"
SUFFIX = re.compile(r"_(total|bucket|count|sum)$")

pytestmark = pytest.mark.integration


def groups(name: str) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / name).read_text("utf-8"))["groups"]
    return [rule for group in rules for rule in group["rules"]]


RULES, ALERTS = groups("rules.yml"), groups("alerts.yml")
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana" / "packetfs.json").read_text("utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def promtool(*arguments: str) -> str:
    if shutil.which("promtool") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def served() -> set[str]:
    """The names of metrics: what a worker counts, what it says of the fleet, and what a gateway's hub counts."""
    counted = {family.name for family in metrics._OWN.collect()}
    source = Path(metrics.__file__).read_text("utf-8")
    shared = set(re.findall(r'(?:GaugeMetricFamily|CounterMetricFamily)\(\s*"(packetfs_\w+)"', source))
    hub = {f"packetfs_browsers_{name}" for name in lending.COUNTED}
    return counted | shared | hub | {name for name, _, _ in metrics._GAUGES}


def named(expression: str) -> set[str]:
    return {SUFFIX.sub("", name) for name in re.findall(r"(?<![\w:])packetfs_\w+", expression)}


def test_promtool_finds_no_fault() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "rules.yml")
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")


def test_every_alert_fires_on_what_it_is_for() -> None:
    promtool("test", "rules", "alerts_test.yml")
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text("utf-8"))["tests"]
    fires = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case["exp_alerts"]}
    assert fires == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", [*RULES, *ALERTS], ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_is_about_metrics_that_there_are(rule: dict[str, Any]) -> None:
    assert named(rule["expr"]) or rule["expr"].startswith('up{job="packetfs"}'), "Prometheus' own of our job"
    assert named(rule["expr"]) <= served()


def test_all_that_is_served_is_watched() -> None:
    assert served() == {
        name for text in [*QUERIES, *(rule["expr"] for rule in [*RULES, *ALERTS])] for name in named(text)
    }


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_whom_to_wake_and_why(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]


class TestDashboard:
    def test_shows_recorded_figures_and_metrics_that_there_are(self) -> None:
        recorded = {rule["record"] for rule in RULES}
        used = {name for query in QUERIES for name in re.findall(r"packetfs:\w+:\w+", query)}
        assert used == recorded, "each is shown, and each that is shown is recorded"
        assert {name for query in QUERIES for name in named(query)} <= served()

    @pytest.mark.parametrize("query", QUERIES)
    def test_asks_what_prometheus_can_parse(self, tmp_path: Path, query: str) -> None:
        rule = {"record": "checked", "expr": query.replace("$__range", "1h")}
        path = tmp_path / "query.yml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "query", "rules": [rule]}]}))
        promtool("check", "rules", str(path))

    def test_has_no_panel_over_another(self) -> None:
        cells = [
            (x, y)
            for panel in DASHBOARD["panels"]
            for at in [panel["gridPos"]]
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24

    def test_asks_the_prometheus_that_is_chosen(self) -> None:
        assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]
        ids = {
            source["uid"]
            for panel in DASHBOARD["panels"]
            for source in [panel["datasource"], *(t["datasource"] for t in panel["targets"])]
        }
        assert ids == {"${datasource}"}
        assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
