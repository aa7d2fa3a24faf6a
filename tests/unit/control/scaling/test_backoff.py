"""When the next start may be tried, tier by tier."""

from llmproxy.control.scaling.backoff import AVOID_FIRST_S, AVOID_LONGEST_S, FIRST_S, LONGEST_S, WINDOW_S, Backoff


def test_the_first_failure_costs_nothing_and_each_further_one_doubles_the_wait() -> None:
    backoff = Backoff()
    backoff.failed(0.0)
    assert backoff.wait_s(0.0) == 0.0
    for number in range(12):
        backoff.failed(1.0)
        assert backoff.wait_s(1.0) == min(FIRST_S * 2**number, LONGEST_S)
    assert backoff.wait_s(1.0 + WINDOW_S + 1.0) == 0.0


def test_a_tier_waits_for_its_own_failures() -> None:
    backoff = Backoff(["spot", "demand"])
    for _ in range(3):
        backoff.failed(0.0, "spot", of_start=True)
    assert backoff.wait_s(0.0, "spot") > 0.0
    assert backoff.wait_s(0.0, "demand") == 0.0
    assert backoff.wait_s(0.0) == backoff.wait_s(0.0, "spot"), "of all, the longest"
    backoff.failed(0.0)
    backoff.failed(0.0)
    assert backoff.wait_s(0.0, "demand") > 0.0, "what is nobody's is everybody's"
    assert not backoff.is_avoided("demand", 0.0)


def test_a_tier_whose_starts_fail_is_avoided_ever_longer_until_one_comes_up() -> None:
    backoff, now = Backoff(["spot", "demand"]), 0.0
    backoff.failed(now, "spot")
    assert not backoff.is_avoided("spot", now), "one that died had come up"
    for number in range(8):
        backoff.failed(now, "spot", of_start=True)
        lasts_s = min(AVOID_FIRST_S * 2**number, AVOID_LONGEST_S)
        assert backoff.is_avoided("spot", now + lasts_s - 1.0)
        now += lasts_s
        assert not backoff.is_avoided("spot", now)
    backoff.failed(now, "spot", of_start=True)
    backoff.came_up("spot")
    assert not backoff.is_avoided("spot", now)
    backoff.failed(now, "spot", of_start=True)
    assert not backoff.is_avoided("spot", now + AVOID_FIRST_S)
