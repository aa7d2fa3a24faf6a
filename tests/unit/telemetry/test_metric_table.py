from pathlib import Path

import pytest

from llmproxy.telemetry.reference import reference
from llmproxy.telemetry.table import TABLE, Kind, Metric, by_name

ROOT = Path(__file__).parents[3]


def test_names_are_unique() -> None:
    assert len(by_name()) == len(TABLE)


@pytest.mark.parametrize("metric", TABLE, ids=lambda metric: metric.name)
def test_row_keeps_the_conventions(metric: Metric) -> None:
    assert metric.name.startswith("llmproxy_")
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")
    assert "|" not in metric.help
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    if metric.kind is Kind.HISTOGRAM:
        assert metric.name.endswith("_seconds")


def test_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m llmproxy.telemetry.reference > docs/metrics.md"


def test_reference_page_has_every_metric() -> None:
    page = reference()
    for metric in TABLE:
        assert f"`{metric.name}`" in page
        assert metric.help in page
