"""The dashboards: JSON, and every metric and label they name exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmproxy.telemetry.table import Kind, by_name

CONFIG = Path(__file__).parents[3] / "config"
FILES = sorted((CONFIG / "grafana").glob("*.json"))
BUILT_IN = {"le"}


def expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str) and "llmproxy" in value:
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def metric(name: str) -> Any:
    table = by_name()
    for suffix in ("_bucket", "_sum", "_count"):
        base = table.get(name.removesuffix(suffix))
        if name.endswith(suffix) and base is not None and base.kind is Kind.HISTOGRAM:
            return base
    found = table.get(name)
    return found if found is None or found.kind is not Kind.HISTOGRAM else None


def mistakes(expression: str) -> list[str]:
    """What an expression names that there is not."""
    found, labels = [], set(BUILT_IN)
    for name in re.findall(r"\bllmproxy_[a-z0-9_]+", expression):
        row = metric(name)
        if row is None:
            found.append(name)
        else:
            labels |= set(row.labels)
    named = re.findall(r'[{,]\s*([a-z_]+)\s*(?:=~|!=|!~|=)\s*"', expression)
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        named += [label.strip() for label in group.split(",")]
    return found + [label for label in named if label not in labels]


def test_there_are_dashboards() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_metric_exists(file: Path) -> None:
    found = list(expressions(json.loads(file.read_text())))
    assert len(found) > 10
    assert {expression: mistakes(expression) for expression in found if mistakes(expression)} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_metric_is_in_the_reference(file: Path) -> None:
    """The page that operators read, not only the table it is made from."""
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    named = re.findall(r"\bllmproxy_[a-z0-9_]+", " ".join(expressions(json.loads(file.read_text()))))
    unknown = {name for name in named if f"`{re.sub('_(bucket|sum|count)$', '', name)}`" not in page}
    assert len(named) > 20
    assert unknown == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_cold_starts_and_their_price_are_shown(file: Path) -> None:
    shown = " ".join(expressions(json.loads(file.read_text())["panels"]))
    for name in ("change_seconds_total", "changes_total", "cold_start_requests_total", "cold_start_seconds"):
        assert f"llmproxy_scaling_{name}" in shown
    assert "llmproxy_tier_cost_total" in shown


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scaling_lies_over_latency_queue_and_cost(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    events = " ".join(one["expr"] for one in dashboard["annotations"]["list"])
    assert "llmproxy_scaling_decisions_total" in events
    shown = " ".join(expressions(dashboard["panels"]))
    for name in ("time_to_first_token_seconds", "queue_waiting", "cost_total", "scaling_replicas"):
        assert f"llmproxy_{name}" in shown
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_metric_of_the_alerts_exists() -> None:
    groups = yaml.safe_load((CONFIG / "prometheus-scaling-rules.yml").read_text())["groups"]
    found = [rule["expr"] for group in groups for rule in group["rules"]]
    assert len(found) > 5
    assert {expression: mistakes(expression) for expression in found if mistakes(expression)} == {}


def test_a_wrong_name_is_found() -> None:
    assert mistakes('sum by (pool) (llmproxy_queue_waiting{pool="a"})') == []
    assert mistakes("sum by (model) (llmproxy_queue_waiting)") == ["model"]
    assert mistakes('llmproxy_queue_waiting{modle="a"}') == ["modle"]
    assert mistakes("llmproxy_queue_wait") == ["llmproxy_queue_wait"]
    assert mistakes("llmproxy_queue_seconds") == ["llmproxy_queue_seconds"], (
        "a histogram by its bare name shows nothing"
    )
