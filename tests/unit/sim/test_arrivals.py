"""Arrivals: the clock they were recorded with, blocks of another size, and the load."""

import random

import pytest

from llmproxy.sim.trace import Arrival, clock_tick_s, regrid, spread


def at(*seconds: float) -> list[Arrival]:
    return [Arrival(one, 1, 1) for one in seconds]


def test_a_coarse_clock_is_seen_though_it_drifts() -> None:
    rng = random.Random(1)
    ticks = [tick * 3.0 + (tick // 40) * 0.001 for tick in (rng.randrange(100) for _ in range(600))]
    assert clock_tick_s(at(*ticks)) == 3.0


def test_a_fine_clock_is_not_spread() -> None:
    rng = random.Random(1)
    assert clock_tick_s(at(*(rng.random() * 300 for _ in range(600)))) == 0.0


def test_requests_that_come_in_groups_at_odd_times_are_no_clock() -> None:
    rng = random.Random(1)
    assert clock_tick_s(at(*(one for _ in range(100) for one in [rng.random() * 300] * 4))) == 0.0


def test_a_few_requests_tell_nothing() -> None:
    assert clock_tick_s(at(0, 0, 0, 3, 3, 3, 6, 6, 6)) == 0.0
    assert clock_tick_s(at(5, 5)) == 0.0


def test_smaller_blocks_keep_prefixes() -> None:
    whole, shorter = regrid([5, 6, 7], 512, 128), regrid([5, 6], 512, 128)
    assert len(whole) == 12
    assert len(set(whole)) == 12
    assert whole[:8] == shorter
    assert not set(regrid([8, 6], 512, 128)[:4]) & set(whole)


def test_larger_blocks_are_known_by_the_hash_that_reaches_their_end() -> None:
    assert len(regrid([5, 6, 7], 512, 1024)) == 1
    assert regrid([5, 6, 7], 512, 1024) == regrid([5, 6, 9], 512, 1024)
    assert regrid([5, 6], 512, 1000) == regrid([5, 6], 512, 1024)
    assert regrid([5, 6], 512, 1024) != regrid([5, 7], 512, 1024)


def test_load_and_jitter() -> None:
    moved = spread(at(10, 20, 20, 40), 2.0, 0.0, random.Random(0))
    assert [one.at_s for one in moved] == [0, 5, 5, 15]
    jittered = spread(at(*range(100)), 1.0, 3.0, random.Random(0))
    assert jittered == spread(at(*range(100)), 1.0, 3.0, random.Random(0))
    assert jittered != spread(at(*range(100)), 1.0, 3.0, random.Random(1))
    assert [one.at_s for one in jittered] == sorted(one.at_s for one in jittered)
    with pytest.raises(ValueError, match="positive"):
        spread(at(1), 0.0, 0.0, random.Random(0))
