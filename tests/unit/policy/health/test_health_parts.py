"""The small parts: the sliding window, the ejection cap, slow start, busy moments."""

import pytest

from llmproxy.policy.health.busy import busy_until
from llmproxy.policy.health.ejection import may_eject
from llmproxy.policy.health.slow_start import SlowStart
from llmproxy.policy.health.window import Window


class TestWindow:
    def test_counts_what_is_in_the_window(self):
        window = Window(10.0)
        for second in range(10):
            window.add(float(second), failed=second % 2 == 0)
        assert (window.requests, window.failures) == (10, 5)

    @pytest.mark.parametrize(("age_s", "counts"), [(9.99, True), (11.01, False), (1e9, False)])
    def test_forgets_within_a_tenth_of_its_length(self, age_s, counts):
        for start in (0.0, 0.3, 0.99, 12345.6):
            window = Window(10.0)
            window.add(0.0, failed=False)
            window.add(start, failed=True)
            window.add(start + age_s, failed=False)
            assert window.failures == counts

    def test_sums_agree_with_slices_over_a_long_time(self):
        window = Window(1.0)
        for i in range(5000):
            window.add(i * 0.037, failed=i % 3 == 0)
            assert window.requests == sum(window._requests)
            assert window.failures == sum(window._failures)
        assert 27 <= window.requests <= 31


class TestEjection:
    @pytest.mark.parametrize(
        ("ejected", "members", "percent", "may"),
        [
            (0, 1, 50, True),
            (0, 10, 0, True),
            (1, 10, 0, False),
            (0, 2, 10, True),
            (1, 2, 50, False),
            (1, 4, 50, True),
            (2, 4, 50, False),
            (1, 3, 50, False),
            (9, 10, 100, True),
        ],
    )
    def test_the_cap_and_the_one_that_always_may(self, ejected, members, percent, may):
        assert may_eject(ejected, members, percent) is may


class TestSlowStart:
    def test_grows_in_tenths_and_ends_at_one(self):
        ramp = SlowStart()
        ramp.begin(100.0, 30.0)
        assert ramp.factor(100.0) == 0.1
        assert ramp.factor(107.0) == 0.2
        assert ramp.factor(115.0) == 0.5
        assert ramp.factor(129.9) == 0.9
        assert ramp.factor(130.0) == 1.0
        assert ramp.due == float("inf")

    def test_walking_from_step_to_step_needs_ten_of_them(self):
        ramp = SlowStart()
        ramp.begin(0.1, 0.7)
        now, factors = 0.1, []
        while now != float("inf"):
            factors.append(ramp.factor(now))
            assert ramp.due > now
            now = ramp.due
        assert factors == [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]

    def test_zero_means_at_once(self):
        ramp = SlowStart()
        ramp.begin(100.0, 0.0)
        assert ramp.factor(100.0) == 1.0

    def test_not_begun_is_full_weight(self):
        assert SlowStart().factor(0.0) == 1.0


class TestBusy:
    @pytest.mark.parametrize(("said", "for_s"), [(None, 1.0), (3.0, 3.0), (0.0, 0.0), (-1.0, 0.0), (3600.0, 5.0)])
    def test_for_how_long(self, said, for_s):
        assert busy_until(100.0, said, 1.0) == 100.0 + for_s
