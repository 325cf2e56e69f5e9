from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from generate_observability import COMPONENTS, declared, exported_name
from ruamel.yaml import YAML

from shoal.observe import dashboards
from shoal.observe.foreign import FOREIGN, Origin
from shoal.observe.ruleset import ALERTS, RECORDINGS, expand, needs, render

DOCS = Path(__file__).resolve().parents[3] / "docs"
OURS = {exported_name(metric) for registry in COMPONENTS.values() for metric in declared(registry)}
RECORDED = {rule.record for rule in RECORDINGS}
METRIC = re.compile(r"\b(?:shoal_|nv_|envoy_(?!cluster_name|http_conn|response_code)|process_)[a-z0-9_]+")


def known(name: str) -> bool:
    plain = re.sub(r"_(bucket|sum|count)$", "", name)
    return bool({name, plain} & (OURS | FOREIGN.keys()))


@pytest.mark.parametrize("expression", [rule.expr for rule in (*RECORDINGS, *ALERTS)])
def test_rules_read_what_is_exported(expression: str) -> None:
    assert set(re.findall(r"shoal:[a-z0-9_:]+", expression)) <= RECORDED
    assert [name for name in METRIC.findall(expand(expression)) if not known(name)] == []


@pytest.mark.parametrize("name", dashboards.render())
def test_dashboards_read_what_is_exported(name: str) -> None:
    text = dashboards.render()[name]
    assert set(re.findall(r"shoal:[a-z0-9_:]+", text)) <= RECORDED
    found = [metric for metric in METRIC.findall(text) if not metric.startswith("envoy_http_conn_manager")]
    assert [metric for metric in found if not known(metric)] == []


def selectors(text: str) -> list[str]:
    """Of what others may export, too: name and matchers."""
    return re.findall(
        r"\b(?:envoy_(?:cluster_(?!name)|http_(?!conn_manager_prefix))\w+|nv_\w+|up)\b(?:\{[^}]*\})?", text
    )


@pytest.mark.parametrize("expression", [rule.expr for rule in (*RECORDINGS, *ALERTS)])
def test_rules_read_our_own_parts_alone(expression: str) -> None:
    assert [it for it in selectors(expression) if "component=" not in it] == []


@pytest.mark.parametrize("name", dashboards.render())
def test_dashboards_read_our_own_parts_alone(name: str) -> None:
    panels = json.loads(dashboards.render()[name])["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert expressions
    assert [it for text in expressions for it in selectors(text) if "component=" not in it] == []


def test_a_recorded_signal_is_evaluated_after_what_it_reads() -> None:
    seen: set[str] = set()
    for rule in RECORDINGS:
        assert set(re.findall(r"shoal:[a-z0-9_:]+", rule.expr)) <= seen
        seen.add(rule.record)


def test_every_recorded_signal_is_looked_at() -> None:
    readers = "".join([*dashboards.render().values(), *(rule.expr for rule in (*RECORDINGS, *ALERTS))])
    chart = DOCS.parent / "deploy" / "helm" / "shoal" / "templates" / "monitoring" / "scaled-objects.yaml"
    text = readers + chart.read_text()
    assert [record for record in RECORDED if record not in text] == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_what_to_do_and_its_chapter_explains_it(alert: object) -> None:
    page, _, anchor = alert.runbook.partition("#")
    headings = re.findall(r"^### (\w+)$", (DOCS.parent / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}
    assert alert.action.endswith(".")
    assert alert.summary
    assert len(alert.conditions) == 1 or alert.on


def test_the_chapter_explains_no_alert_that_is_gone() -> None:
    text = (DOCS / "alerts.md").read_text()
    assert set(re.findall(r"^### (Shoal\w+)$", text, re.MULTILINE)) == {alert.name for alert in ALERTS}
    anchors = {alert.name.lower() for alert in ALERTS}
    assert set(re.findall(r"\(#(shoal\w+)\)", text)) <= anchors
    assert set(re.findall(r"\(alerts.md#(shoal\w+)\)", (DOCS / "operate.md").read_text())) == anchors


def test_a_runbook_is_an_address_where_its_base_is_known() -> None:
    for base, start in (("", ""), ("https://git.example/a", "https://git.example/a/")):
        groups = YAML(typ="safe").load(render(base))["groups"]
        found = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]
        assert found == [f"{start}{alert.runbook}" for alert in ALERTS]


def test_needs_follows_recorded_signals() -> None:
    assert needs("max(shoal:pool_gpu_utilization:ratio) / nv_inference_count") == {Origin.GPU, Origin.TRITON}
    assert not needs("shoal:pool_slot_demand:ratio")


def test_the_rule_file_is_yaml_with_each_rule_once() -> None:
    groups = YAML(typ="safe").load(render())["groups"]
    names = [rule.get("record") or rule["alert"] for group in groups for rule in group["rules"]]
    assert sorted(names) == sorted([*RECORDED, *(alert.name for alert in ALERTS)])
    assert len(set(names)) == len(names)
