"""The page with the plots: whole, self-contained, and safe whatever things are called."""

import re
from xml.etree import ElementTree

import pytest

from llmproxy.sim.contender import Contender
from llmproxy.sim.experiment import Case, Replay
from llmproxy.sim.report.page import page
from llmproxy.sim.report.scale import Linear, Log, up_to
from llmproxy.sim.report.words import COLUMNS, shown
from llmproxy.sim.score import Score
from llmproxy.sim.summary import Spread, summaries

SHED = Replay(Case(Contender("all_shed"), 0.9, 0), Score(None, None, None, None, None, 0, 0, 0, 5), (), (0, 0), (0, 0))


def made(policy: str, load: float, seed: int, mean_s: float) -> Replay:
    score = Score(mean_s, mean_s, mean_s * 2, mean_s * 3, 0.05, 0.25, 0.9, 2.5 + seed, 0)
    curve = tuple(mean_s * (point + 1) / 100 for point in range(200))
    return Replay(Case(Contender(policy), load, seed), score, curve, (0.5, 1.5), (10, 30))


def written(*replays: Replay, facts: tuple[tuple[str, str], ...] = ()) -> str:
    return page(facts, replays, ["backend-1", "backend-2"])


def svgs(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_it_asks_the_network_for_nothing() -> None:
    text = written(made("a", 0.9, 0, 1.0), made("b", 0.9, 0, 2.0))
    assert not re.search(r"https?:|src=|url\(|@import|<link|<script", text)


def test_it_has_every_plot_and_every_figure() -> None:
    replays = [made(policy, load, seed, 1.0) for policy in ("a", "b") for load in (0.8, 0.9) for seed in (0, 1)]
    text = written(*replays, facts=(("Trace", "t.csv"),))
    labels = [one.get("aria-label") for one in svgs(text) if one.get("aria-label")]
    assert labels == [
        "TTFT, cumulative",
        "TTFT, cumulative",
        "Goodput by load",
        "hit rate",
        "Balance under a",
        "Balance under b",
    ]
    assert "<dt>Trace</dt><dd>t.csv</dd>" in text
    assert text.count("<td>3.00/s<small>±0.71</small></td>") == 4
    assert "prefers-color-scheme: dark" in text


def test_one_load_is_shown_as_bars() -> None:
    labels = [one.get("aria-label") for one in svgs(written(made("a", 1.0, 0, 1.0)))]
    assert "requests within the SLO per second" in labels
    assert "Goodput by load" not in labels


def test_names_are_text() -> None:
    text = written(made("<b>&x", 1.0, 0, 1.0), facts=(("<i>", "</dd>"),))
    assert "<b>" not in text
    assert "<i>" not in text
    svgs(text)


def test_nothing_served_is_a_page_too() -> None:
    assert "No request was served." in written(SHED)
    svgs(written(SHED, made("a", 0.9, 0, 1.0)))


def test_more_policies_than_colours_and_a_huge_fleet() -> None:
    replays = [made(f"package.module.with_a_long_name:Policy{number}", 1.0, 0, 1.0) for number in range(11)]
    text = page([], [*replays], ["backend-1", "backend-2"])
    assert "line s1 dashed" in text


def test_bars_start_at_zero_and_end_at_their_value() -> None:
    [goodput] = [one for one in svgs(written(made("a", 1.0, 0, 1.0))) if "SLO" in (one.get("aria-label") or "")]
    [bar] = list(goodput.iter("rect"))
    ticks = [text for text in goodput.iter("text") if text.get("class") == "tick middle"]
    lines = {tick.text: float(tick.get("x") or 0) for tick in ticks}
    assert float(bar.get("x") or 0) == pytest.approx(lines["0"], abs=0.1)
    assert float(bar.get("x") or 0) + float(bar.get("width") or 0) == pytest.approx(lines["2.5"], abs=0.2)


def test_summaries_take_seeds_together() -> None:
    first, second = summaries([made("a", 1.0, 0, 1.0), made("b", 1.0, 0, 5.0), made("a", 1.0, 1, 3.0)])
    assert (first.policy, len(first.replays), second.policy) == ("a", 2, "b")
    assert first.of("ttft_mean_s") == Spread(2.0, pytest.approx(2**0.5))
    assert second.of("ttft_mean_s") == Spread(5.0, None)
    assert summaries([SHED])[0].of("ttft_mean_s") == Spread(None, None)
    assert len(first.curve()) == 400
    assert first.work() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("title", "spread", "text"),
    [
        ("TTFT mean", Spread(1.384, 0.021), "1.38 s ±0.02"),
        ("TTFT mean", Spread(0.1234, None), "0.123 s"),
        ("TPOT p99", Spread(0.0512, 0.001), "51.2 ms ±1.0"),
        ("hit rate", Spread(0.2481, 0.0), "24.8 % ±0.0"),
        ("goodput", Spread(2.5, None), "2.50/s"),
        ("shed", Spread(1234, 0.0), "1,234"),
        ("shed", Spread(1234, 3.2), "1,234 ±3"),
        ("p99", Spread(None, None), "-"),
    ],
)
def test_numbers_as_people_read_them(title: str, spread: Spread, text: str) -> None:
    [column] = [one for one in COLUMNS if one.title == title]
    assert shown(spread, column) == text


def test_scales() -> None:
    assert [round(tick, 9) for tick in Linear(0, 0.5).ticks()] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert Linear(0, 100).ticks() == [0, 20, 40, 60, 80, 100]
    assert Linear(2, 2).place(2) == 0
    assert [round(tick, 9) for tick in Log(0.05, 40).ticks()] == [0.1, 0.3, 1, 3, 10, 30]
    assert Log(0.1, 10).place(1) == pytest.approx(0.5)
    assert (up_to([0.9]).high, up_to([2.0]).high, up_to([]).high) == (1.0, 2.5, 1.5)
