"""The bench's arithmetic: the search for the highest load, ratios, verdicts; and one small run through everything."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from bench.routing.__main__ import main, tasks
from bench.routing.experiments import BY_STEP, EXPERIMENTS, OURS, POLICIES, SCRAPE_S
from bench.routing.replay import Task, highest, run
from bench.routing.report import print_targets
from bench.routing.targets import TARGETS, Spread, figures, ratio, verdicts
from llmproxy.sim.traces import read_trace


def row(experiment: str, policy: str, seed: int, **values: float) -> dict[str, object]:
    standard = {"load": 0.9, "ttft_mean_s": 1.0, "ttft_p90_s": 1.0, "ttft_p99_s": 1.0, "tpot_p99_s": 1.0}
    return {"experiment": experiment, "policy": policy, "seed": seed, "slo_attainment": 1.0, **standard, **values}


@pytest.mark.parametrize("limit", [0.07, 0.4, 0.99, 1.0, 1.01, 1.7, 9.0])
def test_the_highest_load_is_found_to_two_percent(limit: float) -> None:
    tried: list[float] = []

    def fits(load: float) -> bool:
        tried.append(load)
        return load <= limit

    found = highest(fits)
    assert limit / 1.021 <= found <= limit
    assert found in tried
    assert len(tried) < 20


def test_the_search_ends_where_nothing_or_everything_fits() -> None:
    assert highest(lambda load: False) == 0.0
    assert highest(lambda load: True) == 10.0


def test_ratios_are_taken_within_a_seed() -> None:
    assert ratio({1: 1.0, 2: 8.0, 3: 5.0}, {1: 2.0, 2: 8.0, 4: 1.0}) == Spread(0.75, 0.5, 1.0)
    assert ratio({1: 1.0}, {2: 1.0}) is None


def test_of_a_search_the_highest_load_within_the_slo_counts() -> None:
    rows = [
        row("capacity", OURS, 0, load=load, slo_attainment=share) for load, share in ((1, 0.95), (1.3, 0.9), (2, 0.8))
    ]
    assert figures(rows, "capacity", OURS, "load") == {0: 1.3}
    assert figures(rows[2:], "capacity", OURS, "load") == {}


def test_a_target_is_judged_by_the_mean() -> None:
    rows = [row("equal", OURS, seed, ttft_p90_s=found) for seed, found in enumerate((0.4, 0.48))]
    rows += [row("equal", "least_connections", seed) for seed in range(2)]
    told = {verdict.text: verdict for verdict in verdicts(rows)}
    first = told["equal: ttft_p90_s <= 0.45 x least_connections"]
    assert first.met is True
    assert first.found == Spread(pytest.approx(0.44), 0.4, 0.48)  # type: ignore[arg-type]
    assert told["equal: ttft_p90_s <= 0.55 x sglang"].met is None
    rows[1]["ttft_p90_s"] = 0.52
    assert verdicts(rows)[0].met is False


def test_more_is_better_of_a_load() -> None:
    rows = [row("capacity", OURS, 0, load=1.39), row("capacity", "sglang", 0, load=1.0)]
    assert [verdict.met for verdict in verdicts(rows)] == [False, None, None, None]
    rows[0]["load"] = 1.41
    assert verdicts(rows)[0].met is True


def test_what_is_stricter_is_shown_and_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("equal", OURS, 0, ttft_p90_s=0.6)]
    rows += [row("equal", "llm_d", 0), row("equal", "llm_d_live", 0, ttft_p90_s=0.9)]
    told = {verdict.text: (verdict.met, verdict.judged) for verdict in verdicts(rows)}
    assert told["equal: ttft_p90_s <= 0.62 x llm_d"] == (True, True)
    assert told["equal: ttft_p90_s <= 0.62 x llm_d_live"] == (False, False)
    print_targets(Console(width=150), rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("│")[3].strip() for line in lines if "x llm_d" in line] == ["met", "stricter: missed"]


def test_the_real_one_reads_what_engines_publish() -> None:
    assert frozenset({"llm_d"}) == BY_STEP
    assert SCRAPE_S["llm_d"] == SCRAPE_S["llm_d_live"] == 0.05
    assert POLICIES["llm_d"] == POLICIES["llm_d_live"]


def test_disturbed_ours_must_lead_everyone_and_come_near_the_nearest() -> None:
    rows = [row("stale", OURS, seed) for seed in range(2)]
    rows += [row("stale", "dynamo", seed, ttft_mean_s=1.2, ttft_p90_s=0.9) for seed in range(2)]
    rows += [row("stale", "lmetric", seed, ttft_mean_s=0.98 + 0.04 * seed, ttft_p90_s=0.9) for seed in range(2)]
    assert [verdict.met for verdict in verdicts(rows)] == [True, True, False, False]


def test_wrong_estimates_do_not_disturb_those_who_count_tokens() -> None:
    rows = [row("estimates", OURS, 0), row("estimates", "lmetric", 0, ttft_mean_s=2.0), row("equal", "lmetric", 0)]
    found = [
        verdict.found for verdict in verdicts(rows) if verdict.text.startswith("estimates: ttft_mean_s <= lmetric")
    ]
    assert found == [Spread(1.0, 1.0, 1.0)]


def test_every_target_names_what_there_is() -> None:
    assert {target.experiment for target in TARGETS} <= EXPERIMENTS.keys()
    assert {target.rival for target in TARGETS} <= POLICIES.keys()


def test_long_tasks_come_first() -> None:
    found = tasks(["equal", "capacity"], ["lmetric"], 2)
    assert [task.experiment for task in found] == ["capacity", "capacity", "equal", "equal"]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv.gz"
    lines = [f"{1000 * at},{2000 + 512 * (at % 5)},{5 + at % 7},0 {1 + at % 6}-{3 + at % 6}" for at in range(120)]
    path.write_bytes(
        gzip.compress("\n".join(["timestamp_ms,input_tokens,output_tokens,block512_hash_ids", *lines]).encode())
    )
    return path


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "capacity"])
def test_a_task_gives_the_same_figures_again(trace: Path, experiment: str) -> None:
    arrivals = read_trace(trace).arrivals
    first, again = (run(arrivals, 1.0, Task(experiment, OURS, 3)) for _ in range(2))
    assert first == again
    assert first != run(arrivals, 1.0, Task(experiment, OURS, 4))


def test_a_search_reports_every_load_it_tried(trace: Path) -> None:
    rows = run(read_trace(trace).arrivals, 1.0, Task("capacity", "least_connections", 0))
    assert len({found["load"] for found in rows}) == len(rows) > 1
    by_load = sorted(rows, key=lambda found: found["load"])
    assert all(low["slo_attainment"] >= high["slo_attainment"] - 0.05 for low, high in pairwise(by_load))


def test_the_command(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    given = ["--trace", str(trace), "--seeds", "1", "--only", "equal,stale", "--policies", "expected_cost,lmetric"]
    assert main([*given, "--requests", "20:100", "--processes", "1", "--json", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(found["experiment"], found["policy"]) for found in rows] == [
        (experiment, policy) for experiment in ("equal", "stale") for policy in ("expected_cost", "lmetric")
    ]
    assert {"ttft_p90_s", "hit_rate", "goodput_rps", "shed"} <= rows[0].keys()
    assert "Targets for expected_cost" in capsys.readouterr().out


def test_a_missing_trace_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trace", str(tmp_path / "none.csv"), "--quick"]) == 2
    assert "cannot run" in capsys.readouterr().out
