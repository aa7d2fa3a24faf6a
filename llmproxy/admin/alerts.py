"""What Alertmanager's webhook says (version 4 of its message), as floors for a pool.

An alert names its floor in the annotation (or label) `llmproxy_replicas`. It holds until the alert is resolved, or for
as long as `llmproxy_for` says after it was last told. Alertmanager tells of an alert that goes on every
`repeat_interval`, four hours unless it is set, so the default is longer than that. It sends alerts in groups, and a
refused message never again: one that makes no sense takes nothing from the others of its group.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from llmproxy.control.scaling.autoscalers import seconds
from llmproxy.control.scaling.events import LONGEST_S, REPLICAS_BELOW

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


def alerts_of(body: Mapping[str, Any]) -> tuple[list[Alert], list[str]]:
    """Those that name a floor, first those that are resolved; and what is wrong with the others. ValueError says what
    is wrong with the whole message."""
    rows = body.get("alerts")
    if body.get("version") != _VERSION or not isinstance(rows, list):
        raise ValueError(f"this is no message of Alertmanager's webhook, version {_VERSION}")
    found: list[Alert] = []
    wrong: list[str] = []
    for number, row in enumerate(rows):
        try:
            alert = _alert(row)
        except ValueError as error:
            wrong.append(f"alerts[{number}]: {error}")
            continue
        if alert is not None:
            found.append(alert)
    if not found and not wrong:
        raise ValueError(f"none of its alerts has the annotation {REPLICAS}")
    return sorted(found, key=lambda alert: alert.replicas is not None), wrong


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
    id, why = f"alert-{fingerprint}", why[:WHY_MAX]
    if row.get("status") == "resolved":
        return Alert(id, why, None, 0.0)
    return Alert(id, why, _replicas(said[REPLICAS]), _for_s(said))


def _texts(row: Mapping[str, Any], name: str) -> dict[str, str]:
    values = row.get(name) or {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError(f"an alert's {name} must be texts by name")
    if not is_encodable("".join((*values, *values.values()))):
        raise ValueError(f"an alert's {name} must be Unicode text")
    return values


def is_encodable(text: str) -> bool:
    """JSON can write half a surrogate pair, which is no text: no log and no Redis takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _replicas(text: str) -> int:
    """A template may have made `4.5` of it."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= REPLICAS_BELOW - 1:
        raise ValueError(f"{REPLICAS} is {text[:50]!r}, and must be a number of replicas")
    return math.ceil(found)


def _for_s(said: Mapping[str, str]) -> float:
    if FOR not in said:
        return FOR_S
    try:
        found = seconds(said[FOR])
    except ValueError as error:
        raise ValueError(f"{FOR}: {error}") from None
    if not 0 < found <= LONGEST_S:
        raise ValueError(f"{FOR} is {said[FOR][:50]!r}, and must be more than nothing and at most {LONGEST_S:.0f} s")
    return found
