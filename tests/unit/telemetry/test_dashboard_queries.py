"""Dashboards and alerts as Prometheus reads them: every query parses, and the marks of scaling events come."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILES = sorted((Path(__file__).parents[3] / "config" / "grafana").glob("*.json"))
pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def expressions(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from expressions(value)
    if isinstance(node, dict) and isinstance(node.get("expr"), str):
        yield node["expr"]


def filled_in(expression: str) -> str:
    """As Grafana sends it, where Prometheus scrapes every 15 s."""
    found = expression.replace("$__rate_interval", "1m").replace("$pool", ".*")
    assert "$" not in found, f"shorter than two scrapes, or unknown: {expression}"
    return found


def promtool(tmp_path: Path, content: dict[str, Any], *command: str) -> None:
    file = tmp_path / "promtool.json"  # JSON is YAML
    file.write_text(json.dumps(content))
    done = subprocess.run(["promtool", *command, str(file)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_prometheus_can_read_every_query(file: Path, tmp_path: Path) -> None:
    found = [filled_in(one) for one in expressions(json.loads(file.read_text()))]
    assert len(found) > 20
    rules = [{"record": f"query:{number}", "expr": one} for number, one in enumerate(found)]
    promtool(tmp_path, {"groups": [{"name": "dashboard", "rules": rules}]}, "check", "rules")


def test_prometheus_can_read_the_alerts() -> None:
    for file in sorted(FILES[0].parents[1].glob("prometheus-*rules.yml")):
        done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_change_is_marked_also_the_first_of_a_policy(tmp_path: Path) -> None:
    dashboard = json.loads((FILES[0].parent / "scaling.json").read_text())
    [up] = [one["expr"] for one in dashboard["annotations"]["list"] if 'direction="up"' in one["expr"]]
    labels = {"pool": "p", "policy": "demand"}
    shown = "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
    # A counter that is not there before it counts, at 1:45; then once more, at 3:45.
    series = {
        "series": f'llmproxy_scaling_decisions_total{{{re.sub("[{}]", "", shown)}, direction="up"}}',
        "values": "_x7 1x7 2x12",
    }
    marks = {"1m": 0, "2m15s": 1, "3m30s": 0, "4m15s": 1, "6m": 0}
    checks = [
        {
            "expr": f"count by (pool, policy) ({filled_in(up)})",
            "eval_time": at,
            "exp_samples": [{"labels": shown, "value": 1}] * found,
        }
        for at, found in marks.items()
    ]
    test = {"interval": "15s", "input_series": [series], "promql_expr_test": checks}
    promtool(tmp_path, {"evaluation_interval": "15s", "tests": [test]}, "test", "rules")
