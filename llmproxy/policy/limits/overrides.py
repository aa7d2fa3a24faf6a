"""A tenant's own quota in place of its tier's, set while the proxy runs: a JSON object, kept as text in the store."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from llmproxy.core.limits import BUDGET_MAX, MICRO, SIZE_MAX, Quota

NAMES = tuple(field.name for field in fields(Quota))


def override_text(values: Mapping[str, Any]) -> str:
    """The text to keep for `values`: numbers by the names of a quota, null for no limit. ValueError says what is wrong
    with them."""
    for name, value in values.items():
        if name not in NAMES:
            raise ValueError(f"unknown limit {name!r}; there are {', '.join(NAMES)}")
        if value is None:
            continue
        is_money = name.startswith("cost_")
        if isinstance(value, bool) or not isinstance(value, (int, float) if is_money else int):
            raise ValueError(f"{name} must be a {'number' if is_money else 'whole number'}, or null for no limit")
        if not (value * MICRO > 0 if is_money else value >= 1) or value > _most(name):
            raise ValueError(f"{name} is out of range")
    return json.dumps(dict(values), sort_keys=True)


def _most(name: str) -> float:
    if name.startswith("cost_"):
        return BUDGET_MAX / MICRO
    return BUDGET_MAX if name in ("tokens_per_day", "tokens_per_month") else SIZE_MAX


def overridden(quota: Quota, text: str) -> Quota:
    """`quota` with what `text` says in its place. What is no override (any longer) changes nothing."""
    try:
        values = json.loads(text)
        override_text(values)
    except (ValueError, AttributeError):
        return quota
    changes = {
        name: max(1, round(value * MICRO)) if name.startswith("cost_") and value is not None else value
        for name, value in values.items()
    }
    return replace(quota, **changes)
