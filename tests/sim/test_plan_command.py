"""`llmproxy plan --config`, as it is typed, and what it reads."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmproxy.advising import Unadvised, by_minute, job_of
from llmproxy.cli import app
from llmproxy.config.scaling import ScalingConfig
from llmproxy.stores.history import SqliteHistory

CONFIG = """
pools:
  main:
    scaling:
      min: 5
      max: 9
      cold_start: 60s
      history: kept.db
      capacity: {requests_per_s: 4}
      actuator: {kind: webhook, url: "http://127.0.0.1:9", secret: s}
  listed: {backends: ["http://127.0.0.1:9"]}
models: {a: {pool: main}, b: {pool: listed}}
"""
START = 29_000_000


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path / "c.yaml"


def typed(*words: object, expect: int = 0) -> str:
    result = CliRunner().invoke(app, ["plan", *map(str, words)])
    assert result.exit_code == expect, result.output
    return result.output


def test_from_what_the_proxy_kept(config: Path, tmp_path: Path) -> None:
    SqliteHistory(tmp_path / "kept.db").append("main", [(START + n, (3.0, None, None)) for n in range(180)], 0)
    said = typed("--config", config, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["pool"] == "main"
    assert found["hours_replayed"] == 3
    assert found["replica_hours"] == pytest.approx(15, rel=0.01)
    best = found["recommendations"][0]
    assert best["change"] == "min: 1"
    assert best["share_saved"] > 0.5
    assert "min: 1" in said
    assert "3.0 h of its traffic" in said


def test_it_says_what_it_left_out(config: Path, tmp_path: Path) -> None:
    SqliteHistory(tmp_path / "kept.db").append("main", [(START + n, (3.0, None, None)) for n in range(40)], 0)
    config.write_text(CONFIG.replace("      min: 5\n", "      min: 5\n      warm_pool: {size: 1}\n"))
    assert "Not replayed: warm_pool: every start" in typed("--config", config)
    config.write_text(CONFIG)
    assert "Not replayed" not in typed("--config", config)


def test_from_an_access_log(config: Path, tmp_path: Path) -> None:
    lines = []
    for second in range(7200):
        hour, rest = divmod(second, 3600)
        time = f"2026-01-05T{6 + hour:02}:{rest // 60:02}:{rest % 60:02}.500Z"
        row = {"time": time, "request_id": str(second), "duration_ms": 500, "outcome": "ok", "pool": "main"}
        lines.append(json.dumps({**row, "prompt_tokens": 10, "completion_tokens": 5}))
        lines.append(json.dumps({**row, "pool": "listed", "prompt_tokens": 10, "completion_tokens": 5}))
    (tmp_path / "access.jsonl").write_text("\n".join(lines) + "\n")
    typed("-c", config, "--traffic", tmp_path / "access.jsonl", "--per-replica", "2/s", "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["hours_replayed"] == 2
    assert found["recommendations"][0]["share_saved"] > 0.5


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "nothing is kept of pool main's traffic yet"),
        (("--pool", "listed"), "scales no pool 'listed'"),
        (("--per-replica", "0/s"), "--per-replica"),
        (("--cold-start", "soon"), "--cold-start"),
        (("--traffic", "no.csv"), "no.csv"),
    ],
)
def test_mistakes_are_told_in_words(config: Path, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in typed("--config", config, *words, expect=1)


def test_neither_a_peak_nor_a_configuration() -> None:
    assert "--config" in typed(expect=1)


def test_minutes_without_a_record() -> None:
    rates, begins = by_minute([(100, (2.0,)), (103, (4.0,)), (120, (1.0,))])
    assert begins == 6000
    assert rates == [2.0, 2.0, 2.0, 4.0, *[0.0] * 16, 1.0]
    assert by_minute([]) == ([], 0.0)


def test_what_is_not_known_is_asked_for() -> None:
    settings = ScalingConfig.model_validate({"actuator": "dry_run"})
    with pytest.raises(Unadvised, match="requests_per_s"):
        job_of(settings, [1.0] * 100, 0.0, per_replica=None, cold_start_s=1.0)
    with pytest.raises(Unadvised, match="too few"):
        job_of(settings, [1.0] * 10, 0.0, per_replica=1.0, cold_start_s=1.0)
    with pytest.raises(Unadvised, match="no traffic"):
        job_of(settings, [0.0] * 100, 0.0, per_replica=1.0, cold_start_s=1.0)


def test_options_of_the_other_half_are_not_ignored(config: Path) -> None:
    assert "--peak, --headroom: for use without --config" in (
        typed("--config", config, "--peak", "3/s", "--headroom", "10%", expect=1)
    )
    assert "--pool, --json: for use with --config" in (
        typed("--peak", "3/s", "--per-replica", "1/s", "--pool", "main", "--json", "out.json", expect=1)
    )
