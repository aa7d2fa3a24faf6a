"""What Alertmanager's webhook says (version 4 of its message), as floors for a pool.

An alert names its floor in the annotation (or label) `llmproxy_replicas`. It holds until the alert is resolved, or for
as long as `llmproxy_for` says after it was last told. Alertmanager tells of an alert that goes on every
`repeat_interval`, four hours unless it is set, so the default is longer than that.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from llmproxy.control.scaling.autoscalers import seconds

REPLICAS: Final = "llmproxy_replicas"
FOR: Final = "llmproxy_for"
FOR_S: Final = 6 * 3600.0
WHY_MAX: Final = 500
_VERSION: Final = "4"
_FINGERPRINT: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Alert(NamedTuple):
    """`replicas` is None of one that is resolved."""

    id: str
    why: str
    replicas: int | None
    for_s: float


def is_from_alertmanager(body: Mapping[str, Any]) -> bool:
    return "alerts" in body and "replicas" not in body


def alerts_of(body: Mapping[str, Any]) -> list[Alert]:
    """Those that name a floor. ValueError says what is wrong with the message."""
    rows = body.get("alerts")
    if body.get("version") != _VERSION or not isinstance(rows, list):
        raise ValueError(f"this is no message of Alertmanager's webhook, version {_VERSION}")
    found = [alert for row in rows if (alert := _alert(row)) is not None]
    if not found:
        raise ValueError(f"none of its alerts has the annotation {REPLICAS}")
    return found


def _alert(row: Any) -> Alert | None:
    if not isinstance(row, dict):
        raise ValueError("an alert must be a JSON object")
    labels, annotations = _texts(row, "labels"), _texts(row, "annotations")
    said = {**labels, **annotations}
    if REPLICAS not in said:
        return None
    fingerprint = row.get("fingerprint")
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        fingerprint = hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16]
    why = ": ".join(part for part in (labels.get("alertname", ""), annotations.get("summary", "")) if part)
    resolved = row.get("status") == "resolved"
    return Alert(f"alert-{fingerprint}", why[:WHY_MAX], None if resolved else _replicas(said[REPLICAS]), _for_s(said))


def _texts(row: Mapping[str, Any], name: str) -> dict[str, str]:
    values = row.get(name) or {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError(f"an alert's {name} must be texts by name")
    return values


def _replicas(text: str) -> int:
    """A template may have made `4.5` of it."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < 1e6:
        raise ValueError(f"{REPLICAS} is {text[:50]!r}, and must be a number of replicas")
    return math.ceil(found)


def _for_s(said: Mapping[str, str]) -> float:
    if FOR not in said:
        return FOR_S
    try:
        return seconds(said[FOR])
    except ValueError as error:
        raise ValueError(f"{FOR}: {error}") from None
