"""The plots are made of the rows, the same each time, and are files that a browser can show."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

from bench.routing.plots import main

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def row(experiment: str, policy: str, seed: int, load: float, **values: float) -> dict[str, object]:
    names = ("ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "hit_rate", "slo_attainment")
    figures = dict.fromkeys(names, 0.5)
    return {"experiment": experiment, "policy": policy, "seed": seed, "load": load, **figures, **values}


ROWS = [
    row("equal", "llm_d", 0, 0.9, ttft_p90_s=4.0),
    row("equal", "llm_d", 1, 0.9, ttft_p90_s=5.0),
    row("equal", "expected_cost", 0, 0.9, ttft_p90_s=3.0),
    row("loads", "expected_cost", 0, 0.8, slo_attainment=0.95),
    row("loads", "expected_cost", 1, 0.8, slo_attainment=0.85),
    row("loads", "expected_cost", 0, 1.2, slo_attainment=0.6),
]


def draw(rows: list[dict[str, object]], folder: Path) -> dict[str, str]:
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert main([str(folder / "rows.jsonl"), "--out", str(folder)]) == 0
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.svg"))}


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    drawn = draw(ROWS, tmp_path / "one")
    assert drawn == draw(ROWS[::-1], tmp_path / "other")
    assert set(drawn) == {"routing-p90", "routing-ttft", "routing-hits", "routing-load"}


def test_bars_are_means_in_order(tmp_path: Path) -> None:
    root = ElementTree.fromstring(draw(ROWS, tmp_path / "out")["routing-p90"])
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("class")]
    assert [bar.findtext(f"{SVG}title") for bar in bars] == [
        "expected_cost: 3.00 (3.00-3.00)",
        "llm-d: 4.50 (4.00-5.00)",
    ]
    short, long = (float(bar.get("width", "")) for bar in bars)
    assert abs(long / short - 1.5) < 0.01
    assert (root.get("width"), root.get("height")) != (None, None)


def test_curves_are_means_over_the_seeds(tmp_path: Path) -> None:
    text = draw(ROWS, tmp_path / "out")["routing-load"]
    assert re.findall(r"<title>(.*?)</title>", text) == [
        "expected_cost at load 0.80: 90.0 %",
        "expected_cost at load 1.20: 60.0 %",
    ]


def test_nothing_to_draw(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    assert main([str(tmp_path / "rows.jsonl"), "--out", str(tmp_path)]) == 2


def test_the_recorded_rows_give_the_plots_in_the_documents(tmp_path: Path) -> None:
    """By the command that docs/routing.md gives."""
    rows = re.findall(r"bench/results/\S+\.jsonl", (ROOT / "docs" / "routing.md").read_text())
    assert main([*(str(ROOT / name) for name in dict.fromkeys(rows)), "--out", str(tmp_path)]) == 0
    drawn = sorted(tmp_path.glob("*.svg"))
    assert [path.name for path in drawn] == sorted(path.name for path in (ROOT / "docs" / "img").glob("routing-*.svg"))
    for path in drawn:
        assert path.read_bytes() == (ROOT / "docs" / "img" / path.name).read_bytes()
        assert path.stat().st_size < 40_000
