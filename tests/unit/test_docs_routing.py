"""docs/routing.md tells of every policy, and of every option it has."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from llmproxy.policy.routing.registry import POLICIES

PAGE = (Path(__file__).parents[2] / "docs" / "routing.md").read_text()
SECTIONS = dict(re.findall(r"^##+ (.*?)\n(.*?)(?=^##+ |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def section(policy: str) -> str:
    titles = [title for title in SECTIONS if policy in (title.lower().replace(" ", "_"), *title.split(", "))]
    assert len(titles) == 1, titles
    return SECTIONS[titles[0]]


@pytest.mark.parametrize("policy", POLICIES)
def test_it_has_a_row_and_a_section_with_its_options(policy: str) -> None:
    assert re.search(rf"^\| `{policy}`.*\|$", PAGE, re.MULTILINE)
    told = section(policy)
    for option in fields(POLICIES[policy].options_type):
        assert f"`{option.name}`" in told
        if isinstance(option.default, float | int) and policy != "scored":
            assert re.search(rf"^\| `{option.name}` \| {option.default:.10g} \|", told, re.MULTILINE)
