"""Alerts as floors: what Alertmanager's webhook sends to the admin API."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_scaling_admin import ask, dry
from tests.harness.stage import Stage


def told(status: str, *alerts: dict[str, Any]) -> dict[str, Any]:
    """A message as Alertmanager 0.25 sends it."""
    labels = {"alertname": "QueueGrows", "pool": "llama", "wants_replicas": "yes"}
    rows = [
        {
            "status": status,
            "labels": labels | one.get("labels", {}),
            "annotations": {"summary": "the queue grows"} | one.get("annotations", {}),
            "startsAt": "2026-11-21T19:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph",
        }
        | ({"fingerprint": one["fingerprint"]} if "fingerprint" in one else {})
        for one in alerts
    ]
    return {
        "version": "4",
        "groupKey": '{}:{alertname="QueueGrows"}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "llmproxy",
        "groupLabels": {"alertname": "QueueGrows"},
        "commonLabels": labels,
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": rows,
    }


async def test_alerts_raise_the_floor_until_they_are_resolved(stage: Stage, tmp_path: Path) -> None:
    proxy = await dry(stage, tmp_path)
    path = "/admin/scaling/main/event"
    one = {"fingerprint": "a1", "annotations": {"llmproxy_replicas": "3"}}
    other = {"fingerprint": "b2", "labels": {"llmproxy_replicas": "1.2"}, "annotations": {"llmproxy_for": "10m"}}
    silent = {"fingerprint": "c3"}
    status, view = await ask(proxy, "POST", path, told("firing", one, other, silent))
    assert status == 201
    floors = {row["replicas"]: row for row in view["events"]}
    assert floors.keys() == {3, 2}
    assert (floors[3]["who"], floors[3]["why"]) == ("ops", "QueueGrows: the queue grows")
    assert 6 * 3600 - 60 < floors[3]["ends_in_s"] <= 6 * 3600
    assert 540 < floors[2]["ends_in_s"] <= 600
    # It goes on, and wants more by now.
    one["annotations"] = {"llmproxy_replicas": "4"}
    _, view = await ask(proxy, "POST", path, told("firing", one))
    assert sorted(row["replicas"] for row in view["events"]) == [2, 4]
    _, view = await ask(proxy, "POST", path, told("resolved", one, silent))
    assert [row["replicas"] for row in view["events"]] == [2]
    status, view = await ask(proxy, "POST", path, told("resolved", one))
    assert (status, len(view["events"])) == (201, 1), "one that nobody knows any more"
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(row["what"], row.get("replicas")) for row in lines] == [
        ("event", 3),
        ("event", 2),
        ("event", 4),
        ("end event", None),
    ]


async def test_alerts_without_a_fingerprint_are_known_by_their_labels(stage: Stage, tmp_path: Path) -> None:
    proxy = await dry(stage, tmp_path)
    one = {"annotations": {"llmproxy_replicas": "3"}}
    for _ in range(2):
        _, view = await ask(proxy, "POST", "/admin/scaling/main/event", told("firing", one))
        assert len(view["events"]) == 1
    _, view = await ask(proxy, "POST", "/admin/scaling/main/event", told("resolved", one))
    assert view["events"] == []


async def test_an_alert_that_makes_no_sense_takes_nothing_from_the_others(stage: Stage, tmp_path: Path) -> None:
    proxy = await dry(stage, tmp_path)
    path = "/admin/scaling/main/event"
    old: dict[str, Any] = {"fingerprint": "a1", "annotations": {"llmproxy_replicas": "3"}}
    await ask(proxy, "POST", path, told("firing", old))
    old["annotations"] |= {"llmproxy_replicas": "no longer", "llmproxy_for": "soon"}
    bad = {"fingerprint": "b2", "annotations": {"llmproxy_replicas": "2", "llmproxy_for": "30d"}}
    worse = {"fingerprint": "c3", "annotations": {"llmproxy_replicas": "2", "summary": "\ud800"}}
    good = {"fingerprint": "d4", "annotations": {"llmproxy_replicas": "4"}}
    group = told("firing", bad, worse, good)
    group["alerts"] += told("resolved", old)["alerts"]
    status, answer = await ask(proxy, "POST", path, group)
    assert (status, answer["error"]["code"]) == (422, "invalid_event")
    said = answer["error"]["message"]
    assert "alerts[0]: llmproxy_for is '30d'" in said
    assert "alerts[1]: an alert's annotations" in said
    assert "alerts[2]" not in said
    assert [row["replicas"] for row in (await ask(proxy, "GET", "/admin/scaling/main"))[1]["events"]] == [4]
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [row["what"] for row in lines] == ["event", "end event", "event"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"version": "3", "alerts": []}, "version 4"),
        ({"version": "4", "alerts": "none"}, "version 4"),
        (told("firing", {"fingerprint": "a"}), "llmproxy_replicas"),
        (told("firing", {"annotations": {"llmproxy_replicas": "many"}}), "'many'"),
        (told("firing", {"annotations": {"llmproxy_replicas": "-1"}}), "'-1'"),
        (told("firing", {"annotations": {"llmproxy_replicas": "3", "llmproxy_for": "soon"}}), "llmproxy_for"),
        ({"version": "4", "alerts": [5]}, "an alert"),
        ({"version": "4", "alerts": [{"labels": {"a": 1}}]}, "labels"),
    ],
)
async def test_what_is_wrong_with_an_alert_is_said(
    stage: Stage, tmp_path: Path, body: dict[str, Any], says: str
) -> None:
    proxy = await dry(stage, tmp_path)
    status, answer = await ask(proxy, "POST", "/admin/scaling/main/event", body)
    assert (status, answer["error"]["code"]) == (422, "invalid_event")
    assert says in answer["error"]["message"]
    assert (await ask(proxy, "GET", "/admin/scaling/main"))[1]["events"] == []
