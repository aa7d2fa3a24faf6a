"""`llmproxy simulate --scale` and `llmproxy plan`, as they are typed."""

import json
import random

import pytest
from typer.testing import CliRunner

from llmproxy.cli import app


@pytest.fixture
def rates(tmp_path):
    rng = random.Random(1)
    rows = [f"{window * 600},{50 + 40 * rng.random():.1f},1.5" for window in range(18)]
    (tmp_path / "rates.csv").write_text("window_start_s,req_per_s,cv\n" + "\n".join(rows) + "\n")
    return tmp_path / "rates.csv"


def typed(*words, expect=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result


def test_a_line_for_each_controller(rates, tmp_path):
    out = tmp_path / "out.jsonl"
    names = ["demand", "hpa", "kpa", "keda", "clairvoyant"]
    result = typed(
        *("simulate", "--scale", "--rates", rates, "--cold-start", "120s", "--controller", ",".join(names)),
        *("--json", out),
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["controller"] for row in rows] == names
    for row in rows:
        assert list(row) == [
            "controller",
            "slo_attained",
            "replica_hours",
            "hours_over_clairvoyant",
            "scale_events",
        ]
        assert row["controller"] in result.output
        assert 0 < row["slo_attained"] <= 1
    assert rows[-1]["hours_over_clairvoyant"] == 1
    assert rows[0]["slo_attained"] > 0.95
    assert rows[0]["hours_over_clairvoyant"] == pytest.approx(
        rows[0]["replica_hours"] / rows[-1]["replica_hours"], rel=1e-3
    )


def test_the_clairvoyant_is_run_even_where_it_is_not_asked_for(rates, tmp_path):
    out = tmp_path / "out.jsonl"
    typed("simulate", "--scale", "--rates", rates, "--controller", "hpa", "--json", out)
    [row] = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["hours_over_clairvoyant"] > 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--controller", "hpa,nobody"), "nobody"),
        (("--cold-start", "soon"), "--cold-start"),
        (("--cold-start", "2d"), "longer than a day"),
        (("--json", "/nowhere/at/all.jsonl"), "no folder"),
    ],
)
def test_mistakes_are_told_in_words(rates, words, complaint):
    result = typed("simulate", "--scale", "--rates", rates, *words, expect=1)
    assert complaint in result.output


def test_nothing_to_replay():
    assert "--rates" in typed("simulate", "--scale", expect=1).output
    assert "--trace" in typed("simulate", expect=2).output


def test_options_of_the_other_half_are_not_ignored():
    assert "--rates, --cold-start: for autoscaling: add --scale" in (
        typed("simulate", "--rates", "rates.csv", "--trace", "t.csv", "--cold-start", "9s", expect=2).output
    )
    assert "--policy, --limit: for comparing routing: leave out --scale" in (
        typed("simulate", "--scale", "--rates", "rates.csv", "-p", "random", "--limit", "7000", expect=2).output
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("window_start_s,rate\n0,5\n", "nor CSV with window_start_s,req_per_s"),
        ("window_start_s,req_per_s\n0,1e308\n600,1e308\n", "more requests than can be counted"),
        ("window_start_s,req_per_s,cv\n0,5,-1\n", "cv: -1.0 is less than nothing"),
        ("window_start_s,req_per_s\n0,-5\n", "req_per_s: -5.0 is less than nothing"),
    ],
)
def test_rates_that_make_no_sense(tmp_path, text, complaint):
    (tmp_path / "rates.csv").write_text(text)
    found = typed("simulate", "--scale", "--rates", tmp_path / "rates.csv", expect=1)
    assert complaint in found.output.replace("\n", "")


def test_a_file_that_is_not_there(tmp_path):
    assert "cannot be read" in typed("simulate", "--scale", "--rates", tmp_path / "no.csv", expect=1).output


def test_plan():
    result = typed("plan", "--peak", "300/min", "--per-replica", "50/min", "--headroom", "30%")
    assert result.output.startswith("8 replicas")
    assert typed("plan", "--peak", "5/s", "--per-replica", "300/min", "--headroom", "0").output.startswith("1 replica:")
    for wrong in (("--peak", "many"), ("--per-replica", "0/min"), ("--headroom", "-1"), ("--headroom", "30")):
        words = {"--peak": "5/s", "--per-replica": "1/s", "--headroom": "30%"} | dict([wrong])
        result = typed("plan", *(word for pair in words.items() for word in pair), expect=1)
        assert wrong[0] in result.output
