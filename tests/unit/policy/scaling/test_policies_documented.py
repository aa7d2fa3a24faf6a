"""docs/scaling.md has every policy, each of its options and every signal; its examples can be used as they are."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmproxy.policy.scaling.named import known_signal, units
from llmproxy.policy.scaling.options import parse_options
from llmproxy.policy.scaling.registry import POLICIES, build
from llmproxy.policy.scaling.schedule import ScheduleOptions

PAGE = (Path(__file__).parents[4] / "docs" / "scaling.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]


def row_of(policy: str) -> str:
    [found] = [row for row in ROWS if re.match(rf"\| (`\w+`, )?`{policy}`(, `\w+`)? \|.*\|.*\|$", row)]
    return found


def options_of(kind: Any) -> list[str]:
    names = [field.name for field in fields(kind)]
    return ["cron", "tz", "min", "max", "prewarm", "for"] if kind is ScheduleOptions else names


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_and_its_options(policy: str) -> None:
    row = row_of(policy)
    assert [name for name in options_of(POLICIES[policy].options_type) if f"`{name}`" not in row] == []


def test_defaults_are_the_true_ones() -> None:
    for policy in ("demand", "forecast", "rules", "target"):
        stated = dict(re.findall(r"`(\w+)` (cold_start \+ \w+|[\d.]+(?:%|m|s|h)?)", row_of(policy)))
        needed = {"rules": {"up": "queue_depth > 1"}, "target": {"signal": "in_flight", "value": 1}}.get(policy, {})
        assert stated
        # What the page says, given in so many words, makes what is made without a word.
        numbers = {name: int(value) if value.isdigit() else value for name, value in stated.items()}
        kind = POLICIES[policy].options_type
        assert parse_options(kind, needed, policy) == parse_options(kind, {**needed, **numbers}, policy)


def test_every_signal() -> None:
    listed = set(re.findall(r"`([a-z0-9_]+)`", " ".join(row.split("|")[1] for row in ROWS)))
    assert set(dict(units())) - listed == set()
    section = PAGE[PAGE.index("| signal | |") : PAGE.index("How fast to follow")]
    for name in re.findall(r"`([a-z0-9_]+)`", " ".join(row.split("|")[1] for row in section.splitlines() if row)):
        assert known_signal(name) == name


def test_examples_can_be_used() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    policies = [one for block in blocks for one in block.get("policies", ())]
    for policy in policies:
        [(name, options)] = policy.items()
        build(name, options)
    assert {name for policy in policies for name in policy} == set(POLICIES)
