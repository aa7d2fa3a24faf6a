"""The example for Alertmanager: it sends what a pool is to be told of, where the proxy listens for it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

FILE = Path(__file__).parents[3] / "config" / "alertmanager.yml"


def routes(route: dict[str, Any]) -> list[dict[str, Any]]:
    return [route, *(inner for child in route.get("routes", []) for inner in routes(child))]


def test_every_route_has_a_receiver() -> None:
    whole = yaml.safe_load(FILE.read_text())
    receivers = {one["name"]: one for one in whole["receivers"]}
    assert {route["receiver"] for route in routes(whole["route"])} == receivers.keys()
    [webhook] = receivers["llmproxy"]["webhook_configs"]
    assert urlsplit(webhook["url"]).path == "/admin/scaling/llama/event"
    assert webhook["send_resolved"] is True


@pytest.mark.skipif(shutil.which("amtool") is None, reason="needs amtool, of Alertmanager")
def test_amtool_accepts_it() -> None:
    subprocess.run(["amtool", "check-config", str(FILE)], check=True, capture_output=True, timeout=60)
