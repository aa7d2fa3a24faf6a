"""The alert rules: YAML, and every metric and label they name exists."""

from pathlib import Path

import pytest
import yaml

from tests.unit.telemetry.test_dashboards import mistakes

CONFIG = Path(__file__).parents[3] / "config"
FILES = sorted(CONFIG.glob("prometheus-*rules.yml"))


def test_there_are_rules() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_metric_exists(file: Path) -> None:
    rules = [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert "llmproxy_" in rule["expr"]
        assert mistakes(rule["expr"]) == [], rule["alert"]
        assert rule["annotations"]["summary"]


def test_a_metric_that_is_none_is_noticed() -> None:
    assert mistakes("max by (nothing) (llmproxy_scaling_spend) > 0") == ["llmproxy_scaling_spend", "nothing"]
