"""deploy/prometheus and deploy/grafana: promtool takes them, and what they ask for is what docs/metrics.md has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from stillup.__main__ import main
from tests.docs.metric_rows import PAGE, metric_rows
from tests.docs.pages import ROOT, blocks
from tests.system.harness import sample

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "stillup.json").read_text())
VARIABLES = {"$__rate_interval": "5m", "$datasource": "x", "$job": "stillup", "$instance": "a:9464"}
"""What Grafana puts in their place."""
NEVER, ALWAYS = "vector(1) == 2", "vector(1)"
COMMANDS = re.compile(r"'stillup\s+([a-z]+)")
SELECTORS = re.compile(r"\b(stillup_\w+)(?:\{([^}]*)\})?")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> Iterator[str]:
    """Those of the dashboard, as Prometheus is asked."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"] if "expr" in annotation]
    for text in found:
        expr = re.sub(r"\$\w+", lambda variable: VARIABLES[variable[0]], text)
        assert "$" not in expr
        yield expr


def promtool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, or skip the test."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not here (Debian: prometheus)")
    return subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def checked(folder: Path, *words: str) -> None:
    """Run it, and see that it finds nothing."""
    done = promtool(folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr


def recorded(folder: Path, exprs: list[str]) -> Path:
    """A file of rules that has each of these expressions."""
    named = [{"record": f"dashboard:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": named}]}))
    return file


def rewritten(folder: Path, expr: str) -> Path:
    """A copy of the alerts, all of which ask for that instead."""
    file = folder / "alerts.yml"
    file.write_text(
        yaml.safe_dump({"groups": [{"name": "stillup", "rules": [{**rule, "expr": expr} for rule in rules()]}]})
    )
    return file


def test_the_alerts_fire_when_they_should() -> None:
    """And none does in an ordinary reload: deploy/prometheus/alerts_test.yml."""
    checked(PROMETHEUS, "check", "rules", "alerts.yml")
    checked(PROMETHEUS, "test", "rules", "alerts_test.yml")


def test_every_alert_says_what_to_do() -> None:
    """It has a severity, a summary, and a description with a command of stillup's; and a test in which it fires."""
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test.get("alert_rule_test", ()) if one.get("exp_alerts")}
    assert {rule["alert"] for rule in rules()} == fired
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}
        commands = COMMANDS.findall(rule["annotations"]["description"])
        assert commands, rule["alert"]
        assert set(commands) <= set(main.list_commands(click.Context(main))), rule["alert"]


@pytest.mark.parametrize("expr", sample([NEVER, ALWAYS]))
def test_a_wrong_alert_is_found_out(expr: str, tmp_path: Path) -> None:
    """Each has a test that fails if it never fires, and one that fails if it always does."""
    shutil.copy(PROMETHEUS / "alerts_test.yml", tmp_path)
    done = promtool(rewritten(tmp_path, expr).parent, "test", "rules", "alerts_test.yml")
    assert done.returncode != 0
    failed = set(re.findall(r"^ +alertname: (\w+), time: ", done.stdout + done.stderr, re.MULTILINE))
    assert failed == {rule["alert"] for rule in rules()}


def test_a_broken_rule_is_found_out(tmp_path: Path) -> None:
    """Else the check of the rules would say nothing."""
    assert promtool(tmp_path, "check", "rules", str(rewritten(tmp_path, "sum by ("))).returncode != 0


def test_the_dashboard_asks_what_prometheus_understands(tmp_path: Path) -> None:
    """Each of its expressions parses; one that does not is found out."""
    exprs = list(expressions())
    checked(tmp_path, "check", "rules", str(recorded(tmp_path, exprs)))
    assert promtool(tmp_path, "check", "rules", str(recorded(tmp_path, [*exprs, "rate(stillup_x[5m)"]))).returncode != 0


def test_the_page_has_a_configuration(tmp_path: Path) -> None:
    """Which Prometheus takes, with the alerts beside it."""
    (block,) = (block for block in blocks(PAGE) if "scrape_configs:" in block.text)
    (tmp_path / "prometheus.yml").write_text(block.text)
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    checked(tmp_path, "check", "config", "prometheus.yml")
    (scrape,) = yaml.safe_load(block.text)["scrape_configs"]
    assert f'job="{scrape["job_name"]}"' in next(rule["expr"] for rule in rules() if rule["alert"] == "StillupDown")


def test_what_is_asked_for_is_there() -> None:
    """Every metric in the alerts, in their tests and on the dashboard, with its labels and the values of those."""
    rows = {series: row for row in metric_rows() for series in row.series}
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    given = [series["series"] for test in tests for series in test["input_series"]]
    asked = [
        found for text in [*(rule["expr"] for rule in rules()), *given, *expressions()] for found in selectors(text)
    ]
    assert len(asked) > 100
    for name, labels in asked:
        assert name in rows, name
        for label, values in labels.items():
            known = rows[name].labels[label]
            assert not known or values <= known, f"{name}: {label}={values}"


def selectors(text: str) -> Iterator[tuple[str, dict[str, set[str]]]]:
    """The metrics that an expression names, each with its labels and what they are to be; not those of the target."""
    for name, matchers in SELECTORS.findall(text):
        found = re.findall(r'(\w+)=~?"([^"]*)"', matchers)
        yield name, {label: set(values.split("|")) for label, values in found if label not in ("job", "instance")}


def test_the_dashboard_is_whole() -> None:
    """Everything is asked of the data source that was chosen; panels have numbers of their own, and do not overlap."""
    panels = DASHBOARD["panels"]
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "job", "instance"}
    assert variables["datasource"]["type"] == "datasource"
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = [target["datasource"] for panel in panels for target in panel.get("targets", ())]
    sources += [variables[name]["datasource"] for name in ("job", "instance")]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    places = [
        (column, line)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(column for column, _ in places) < 24
    assert all(panel["type"] == "row" or panel["description"] for panel in panels)
